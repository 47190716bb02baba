# SPDX-License-Identifier: Apache-2.0
"""Warnings of libraries: in the manifest, once in our words where something can be done, never raw on the terminal."""

import logging
import sys
import warnings

import pytest

from tta_bench.data.images.prefetch import prefetch
from tta_bench.engine import objects
from tta_bench.engine.hearing import Heard, _Ear, warnings_heard
from tta_bench.errors import Caution
from tta_bench.spec.warned import KNOWN, in_our_words, is_idle
from tta_bench.testing import tiny_source

from . import fakes
from .fakes import cell, run

MISMATCH = "QuickGELU mismatch between final model config (quick_gelu=False) and pretrained tag 'openai'"


@pytest.fixture
def shown():
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


def listen(work, said=None):
    heard = Heard(said=set() if said is None else said)
    with warnings_heard(heard):
        work()
    return heard.warnings


def test_warnings_and_log_lines_are_kept_once_and_none_is_shown(shown, capsys):
    def work():
        for _ in range(2):
            warnings.warn("old", FutureWarning, stacklevel=1)
            logging.getLogger("timm.models").warning("no %s", "weights")
            logging.getLogger("huggingface_hub").warning("a slow line")
        logging.getLogger("timm.models").info("loading")

    loud = logging.getLogger("huggingface_hub")
    handlers, before = loud.handlers[:], logging.getLogger().handlers[:]
    heard = listen(work)
    assert heard[:2] == ["FutureWarning: old", "WARNING of timm.models: no weights"]
    assert len([line for line in heard if "a slow line" in line]) == 1
    assert (loud.handlers, logging.getLogger().handlers) == (handlers, before)
    assert not shown
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (MISMATCH, "-quickgelu"),
        ("CUDA initialization: The NVIDIA driver on your system is too old .", "update its driver"),
        ("This DataLoader will create 16 worker processes in total. Our suggested max is 2", "fewer workers"),
        ("The operator 'aten::_x' is not currently supported on the MPS backend and will fall back to run on the CPU.",
         "device cpu"),
        ("Image size (201326592 pixels) exceeds limit of 178956970 pixels, could be decompression bomb", "scale it"),
        ("You are sending unauthenticated requests to the HF Hub. Please set a HF_TOKEN", "set HF_TOKEN"),
    ],
)  # fmt: skip
def test_a_warning_that_a_user_can_do_something_about_is_said_once_in_our_words(shown, text, advice):
    said = set()
    for _ in range(2):
        assert listen(lambda: warnings.warn(text, UserWarning, stacklevel=1), said) == [
            f"UserWarning: {text}"
        ]
    assert [one.category for one in shown] == [Caution]
    assert advice in str(shown[0].message)
    assert text not in str(shown[0].message)


def test_a_line_that_its_author_cannot_format_is_kept_as_it_is():
    heard = []
    _Ear(heard.append).emit(
        logging.LogRecord("timm", logging.WARNING, "file", 1, "%d numbers", ("no",), None)
    )
    assert heard == ["WARNING of timm: %d numbers"]


def test_every_sentence_is_ours_and_no_other_warning_has_one():
    assert in_our_words("UserWarning: There is a performance drop. Please file us an issue on GitHub") is None
    assert all(sentence[0].islower() and not sentence.endswith(".") for _, sentence in KNOWN)


def test_what_is_heard_while_a_model_is_loaded_is_in_the_manifest_of_its_first_cell(monkeypatch, shown):
    def loaded(*arguments, **options):
        warnings.warn("`torch.jit.interface` is deprecated", FutureWarning, stacklevel=1)
        logging.warning(MISMATCH)
        return tiny_source(classes=5, size=(3, 16, 16))

    monkeypatch.setattr(objects, "load_model", loaded)
    store, ended, _ = run([cell(fakes.Same(), shifts=(shift,)) for shift in (fakes.FOG, fakes.SNOW)])
    first, second = (store.manifests[one.cell].warnings for one in ended)
    assert first == ("FutureWarning: `torch.jit.interface` is deprecated", f"WARNING of root: {MISMATCH}")
    assert second == ()
    assert [one.category for one in shown] == [Caution]


def warned(chunk):
    warnings.warn(f"chunk {sum(chunk)}", UserWarning, stacklevel=1)
    return sum(chunk)


@pytest.mark.parametrize("workers", [0, 2])
def test_warnings_of_worker_processes_are_heard_too(workers, shown):
    assert list(prefetch(warned, [[1], [2, 3]], workers)) == [1, 5]
    assert [str(one.message) for one in shown] == ["chunk 1", "chunk 5"]


@pytest.mark.parametrize("asked", [False, True])
def test_the_command_line_shows_no_raw_warning_unless_python_is_asked_for_them(monkeypatch, capsys, asked):
    from tta_bench import cli

    def app():
        for text in ("`torch.jit.interface` is deprecated", MISMATCH, MISMATCH):
            warnings.warn(text, UserWarning, stacklevel=1)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "warnoptions", ["default"] if asked else [])
    with warnings.catch_warnings(record=True) as raw:
        warnings.simplefilter("always")
        cli.main()
    assert len(raw) == (3 if asked else 0)
    assert capsys.readouterr().err == ("" if asked else f"tta-bench: note: {in_our_words(MISMATCH)}\n")


def test_what_torch_says_of_its_own_future_is_not_announced():
    assert is_idle("FutureWarning: `torch.jit.interface` is deprecated. Please use `torch.compile` instead.")
    assert not is_idle("UserWarning: QuickGELU mismatch between final model config and pretrained tag")
