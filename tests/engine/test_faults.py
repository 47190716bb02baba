# SPDX-License-Identifier: Apache-2.0
"""What foreign code does wrong ends with its own cell: nothing leaks into the cells after it."""

import io
import os
import random
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from tta_bench.data.dataset import Shift
from tta_bench.errors import Caution, StoreError
from tta_bench.method import Adapted

from . import fakes
from .fakes import cell, run


@dataclass(frozen=True)
class Optimised(fakes.Same):
    """Run an optimiser on aliases of the source model's own tensors."""

    def adapt(self, source, state, inputs):
        params = {name: value.detach().requires_grad_() for name, value in source.normalisation().items()}
        logits = source.logits(inputs.images, params)
        optimiser = torch.optim.SGD(list(params.values()), lr=10.0)
        logits.square().sum().backward()
        optimiser.step()
        return Adapted(state, logits.detach())


@dataclass(frozen=True)
class Silently(fakes.Same):
    """Write where no version counter counts."""

    def adapt(self, source, state, inputs):
        next(iter(source.params.values())).data.mul_(0.5)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Raising(fakes.Same):
    """Write to the mean, then raise."""

    def init(self, source, task):
        source.mean.data.add_(1)
        raise RuntimeError("broke")


@dataclass(frozen=True)
class Noting(fakes.Same):
    """Write while it describes itself."""

    def notes(self, source):
        next(iter(source.params.values())).detach().zero_()
        return {}


@pytest.mark.parametrize("bad", [Optimised(), Silently(), Raising(), Noting()])
def test_a_method_that_writes_to_the_source_model_fails_and_the_next_cell_has_a_fresh_one(bad):
    good = cell(fakes.Same(), name="good")
    clean, ended, _ = run([good])
    store, again, reporter = run([cell(bad, name="bad"), good])
    assert [one.status for one in again] == ["failed", "complete"]
    assert again[1].cell == ended[0].cell
    if not isinstance(bad, Raising):
        assert "must leave the source model as it is" in reporter.ended[0][2]
    columns = [one.writers[ended[0].cell].column("confidence") for one in (clean, store)]
    assert columns[0] == columns[1]


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Other(BaseException):
    pass


@pytest.mark.parametrize("error", [StoreError("mine"), Mute(), Other("odd"), GeneratorExit()])
@pytest.mark.parametrize("place", ["adapt", "init", "notes"])
def test_whatever_a_method_raises_fails_its_own_cell_only(error, place):
    def broken(*arguments):
        raise error

    bad = type("Bad", (fakes.Same,), {place: broken})
    store, ended, reporter = run([cell(bad(), name="bad"), cell(fakes.Same(), name="good")])
    assert [one.status for one in ended] == ["failed", "complete"]
    assert reporter.ended[0][2].startswith(type(error).__name__)
    assert type(error).__name__ in store.manifests[ended[0].cell].error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space left"), ValueError("closed file")]
)
@pytest.mark.parametrize("call", ["cell_started", "advanced", "cell_ended"])
def test_a_reporter_that_fails_decides_about_no_cell(monkeypatch, error, call):
    def broken(*arguments):
        raise error

    monkeypatch.setattr(fakes.Silent, call, broken)
    _, ended, _ = run([cell(fakes.Same()), cell(fakes.Counter())])
    assert [one.status for one in ended] == ["complete", "complete"]


@dataclass(frozen=True)
class Leaking(fakes.Same):
    """Change all that is global, then raise or not."""

    fails: bool = False

    def adapt(self, source, state, inputs):
        logits = source.logits(inputs.images)
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        torch.manual_seed(len(inputs.images))
        np.random.seed(3)
        random.seed(4)
        os.chdir(tempfile.gettempdir())
        sys.stdout = io.StringIO()
        if self.fails:
            raise RuntimeError("broke")
        return Adapted(state, logits)


@dataclass(frozen=True)
class Looking(fakes.Same):
    """Tell what is global around it, and draw from every global generator."""

    def init(self, source, task):
        seen = [
            torch.get_default_dtype(), torch.empty(1).device.type, torch.are_deterministic_algorithms_enabled(),
            torch.is_grad_enabled(), os.getcwd(), sys.stdout, float(torch.rand(())), np.random.rand(), random.random(),
        ]  # fmt: skip
        SEEN.append(seen)
        return super().init(source, task)


SEEN = []


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_global_leaks_from_a_cell_into_the_next(fails):
    SEEN.clear()
    run([cell(Looking(), name="looking")])
    _, ended, _ = run([cell(Leaking(fails), name="leaking"), cell(Looking(), name="looking")])
    assert [one.status for one in ended] == ["failed" if fails else "complete", "complete"]
    assert SEEN[0] == SEEN[1]
    assert torch.empty(1).device.type == "cpu"


@dataclass(frozen=True)
class Warning_(fakes.Same):
    """Warn as a library does, and as we do."""

    def adapt(self, source, state, inputs):
        warnings.warn("There is a performance drop. Please file us an issue", UserWarning, stacklevel=1)
        warnings.warn("mind the batch", Caution, stacklevel=1)
        return super().adapt(source, state, inputs)


def test_warnings_of_libraries_go_into_the_manifest_and_not_to_the_terminal():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        store, ended, _ = run([cell(Warning_())])
    assert store.manifests[ended[0].cell].warnings == (
        "UserWarning: There is a performance drop. Please file us an issue",
    )
    assert {str(one.message) for one in shown} == {"mind the batch"}


def bad_reader(request):
    images = fakes.Noise(request.shift)
    images.labels = images.labels + 3
    return images


def fails(request):
    raise KeyError("a column")


@pytest.mark.parametrize("reader", [bad_reader, fails])
def test_a_bad_reader_fails_its_own_cells_only(reader):
    broken = replace(fakes.NOISE, name="broken", open=reader)
    cells = [cell(fakes.Same(), [Shift("broken", "fog", 5)], dataset=broken), cell(fakes.Same())]
    store, ended, reporter = run(cells)
    assert [one.status for one in ended] == ["failed", "complete"]
    assert reporter.ended[0][2].startswith("PluginError: the reader of broken:fog:5 ")
    failed = store.manifests[ended[0].cell]
    assert (failed.protocol.images_used, failed.status) == (0, "failed")
    assert "the reader of broken:fog:5" in failed.error


def test_bad_source_images_fail_the_cells_that_need_them():
    def source_split():
        images = fakes.Noise("source", count=60)
        images.labels = images.labels.astype(float)
        return images

    dataset = replace(fakes.NOISE, source_split=source_split)
    _, ended, reporter = run([cell(fakes.Replay(), dataset=dataset), cell(fakes.Same(), dataset=dataset)])
    assert [one.status for one in ended] == ["failed", "complete"]
    assert "the source images of noise must have whole numbers as labels" in reporter.ended[0][2]


def test_source_images_of_another_kind_fail_the_cell_when_they_are_read():
    def source_split():
        images = fakes.Noise("source", count=60)
        images.load = lambda positions, preprocess: torch.zeros(len(positions), 3, 16, 16)
        return images

    dataset = replace(fakes.NOISE, source_split=source_split)
    _, ended, reporter = run([cell(fakes.Replay(), dataset=dataset)])
    assert [one.status for one in ended] == ["failed"]
    assert "must give uint8 images" in reporter.ended[0][2]
