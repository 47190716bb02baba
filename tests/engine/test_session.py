# SPDX-License-Identifier: Apache-2.0
"""A run: what is computed, reused, resumed, reset and recorded."""

from importlib.metadata import version

import numpy as np
import pytest
import torch

from tta_bench.testing import tiny_source

from . import fakes
from .fakes import FOG, SNOW, cell, run


def test_rows_join_labels_scores_and_clocks():
    store, ended, reporter = run([cell(fakes.Same())])
    writer, images = store.writers[ended[0].cell], fakes.Noise(FOG)
    assert ended[0].status == "complete"
    assert reporter.images == len(images)
    assert writer.column("position") == list(range(len(images)))
    labels = dict(zip(images.ids, images.labels, strict=True))
    assert writer.column("label") == [labels[name] for name in writer.column("image_id")]
    source = tiny_source(classes=5, size=(3, 16, 16))
    order = [images.ids.index(name) for name in writer.column("image_id")]
    expected = source.logits(images.pixels[order].float() / 255)
    assert writer.column("prediction") == expected.argmax(-1).tolist()
    assert np.allclose(writer.column("confidence"), expected.softmax(-1).amax(-1), atol=1e-6)
    assert writer.column("source_prediction") == writer.column("prediction")
    assert all(value > 0 for value in writer.column("adapt_ms"))
    assert writer.column("predict_ms") == [None] * len(images)
    assert writer.column("warmup") == [index < 8 for index in range(len(images))]


def test_the_second_run_computes_nothing():
    store, first, _ = run([cell(fakes.Same()), cell(fakes.Counter())])
    before = {key: writer.batches for key, writer in store.writers.items()}
    _, second, reporter = run([cell(fakes.Same()), cell(fakes.Counter())], store)
    assert [one.status for one in second] == ["reused", "reused"]
    assert [one.cell for one in second] == [one.cell for one in first]
    assert reporter.images == 0
    assert before == {key: writer.batches for key, writer in store.writers.items()}
    _, third, _ = run([cell(fakes.Same())], store, force=True)
    assert third[0].status == "complete"


def test_what_changes_a_number_changes_the_id():
    base = cell(fakes.Drawn())
    others = [
        cell(fakes.Drawn(), [SNOW]),
        cell(fakes.Drawn(), seed=1),
        cell(fakes.Drawn(), batch_size=4),
        cell(fakes.Drawn(), reset="batch"),
        cell(fakes.Faulty(after=99)),
        cell(fakes.Faulty(after=98)),
    ]
    _, ended, _ = run([base, *others])
    assert len({one.cell for one in ended}) == 1 + len(others)


@pytest.mark.parametrize(
    ("reset", "expected"),
    [
        ("image", [0] * 74),
        ("batch", [7] * 32 + [4] * 5 + [7] * 32 + [4] * 5),
        ("shift", [7] * 8 + [15] * 8 + [23] * 8 + [31] * 8 + [36] * 5),
        ("never", None),
    ],
)
def test_state_is_reset_where_the_rule_says(reset, expected):
    shifts = [[FOG, SNOW]] if reset == "never" else [[FOG], [SNOW]]
    store, ended, _ = run([cell(fakes.Counter(), one, reset=reset) for one in shifts])
    seen = [value for one in ended for value in store.writers[one.cell].column("prediction")]
    if reset == "never":
        counts = np.concatenate([np.minimum((np.arange(37) // 8 + 1) * 8, 37) + start for start in (0, 37)])
        expected = (counts - 1).tolist()
    elif reset == "shift":
        expected = expected * 2
    assert seen == [value % 5 for value in expected]


def test_draws_of_an_image_do_not_depend_on_its_batch():
    store, ended, _ = run([cell(fakes.Drawn(), batch_size=size) for size in (1, 8, 37)])
    predictions = [store.writers[one.cell].column("confidence") for one in ended]
    assert predictions[0] == predictions[1] == predictions[2]
    assert len(set(predictions[0])) == 37


def test_a_method_that_raises_fails_its_cell_and_no_other():
    store, ended, reporter = run([cell(fakes.Faulty(), [FOG]), cell(fakes.Counter(), [FOG])])
    assert [one.status for one in ended] == ["failed", "complete"]
    manifest = store.manifests[ended[0].cell]
    assert "RuntimeError: the plug-in broke" in manifest["error"]
    assert "fakes.py" in manifest["error"]
    assert len(store.writers[ended[0].cell].column("prediction")) == 16
    assert reporter.ended[0][2] == "RuntimeError: the plug-in broke"


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_scores_that_are_not_finite_mark_the_cell_collapsed(value):
    store, ended, _ = run([cell(fakes.Faulty(value=value)), cell(fakes.Counter())])
    assert [one.status for one in ended] == ["collapsed", "complete"]
    assert len(store.writers[ended[0].cell].column("prediction")) == 37


@pytest.mark.parametrize("method", [fakes.Drawn(), fakes.Counter()])
def test_a_killed_cell_resumes_to_the_same_rows(method):
    whole, ended, _ = run([cell(method)])
    store = fakes.ListStore(die_after=2)
    with pytest.raises(KeyboardInterrupt):
        run([cell(method)], store)
    assert store.status(ended[0].cell) == "running"
    store.die_after = None
    _, _, reporter = run([cell(method)], store, resume=True)
    assert reporter.images == (37 - 16 if method.card.reset == "image" else 37)
    for name in ("image_id", "position", "prediction", "confidence", "label", "source_prediction"):
        assert store.writers[ended[0].cell].column(name) == whole.writers[ended[0].cell].column(name)


def test_source_scores_are_computed_once_for_all_methods():
    store, ended, _ = run([cell(fakes.Counter()), cell(fakes.Drawn()), cell(fakes.Counter(), reset="batch")])
    assert len(store.kept) == 1
    columns = [store.writers[one.cell].column("source_prediction") for one in ended]
    assert columns[0] == columns[1] == columns[2]


def test_memory_is_probed_on_the_first_step_after_warmup_and_on_the_last():
    store, ended, _ = run([cell(fakes.Same())], memory=True)
    peaks = store.writers[ended[0].cell].column("peak_mib")
    probed = [index for index, value in enumerate(peaks) if value is not None]
    assert probed == [*range(8, 16), *range(32, 37)]
    assert all(peaks[index] > 0 for index in probed)


def test_the_manifest_tells_the_protocol_and_the_machine():
    store, ended, _ = run([cell(fakes.Counter(), batch_size=5)])
    manifest = store.manifests[ended[0].cell]
    comparable, columns = manifest["protocol"]["comparable"], manifest["protocol"]["columns"]
    assert comparable["images_used"] == comparable["images_available"] == 37
    assert comparable["severity"] == [5]
    assert columns["batch_size"] == 5
    assert columns["reset"] == "shift"
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    assert manifest["versions"]["torch"] == version("torch")
    assert manifest["init_ms"] >= 0
    assert manifest["peak_rss_mib"] > 10
