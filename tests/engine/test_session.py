# SPDX-License-Identifier: Apache-2.0
"""A run: what is computed, reused, resumed, reset and recorded."""

from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.engine import objects
from tta_bench.engine.rows import score_columns
from tta_bench.errors import StoreError
from tta_bench.method import Adapted
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


@dataclass(frozen=True)
class Settings(fakes.Same):
    """Fail unless float32 is float32 in convolutions too, and change settings of torch."""

    def adapt(self, source, state, inputs):
        assert not torch.backends.cudnn.allow_tf32
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(3)
        return super().adapt(source, state, inputs)


def test_a_run_leaves_the_settings_of_torch_as_they_were(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    random = torch.get_rng_state()
    _, ended, _ = run([cell(Settings())])
    assert ended[0].status == "complete"
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_default_dtype() == torch.float32
    assert torch.equal(torch.get_rng_state(), random)


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
    assert "RuntimeError: the plug-in broke" in manifest.error
    assert "fakes.py" in manifest.error
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
    assert store.manifests[ended[0].cell].status == "running"
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
    protocol = manifest.protocol
    assert protocol.images_used == protocol.images_available == 37
    assert protocol.severity == (5,)
    assert protocol.batch_size == 5
    assert protocol.reset == "shift"
    assert manifest.machine.threads == torch.get_num_threads()
    assert manifest.versions["torch"] == version("torch")
    assert manifest.outcome.init_ms >= 0
    assert manifest.outcome.peak_rss_mib > 10


@pytest.mark.parametrize("change", ["name", "preprocess", "mean", "std"])
def test_models_that_see_images_otherwise_share_neither_scores_nor_cells(monkeypatch, change):
    store, ended, _ = run([cell(fakes.Counter())])
    other = tiny_source(classes=5, size=(3, 16, 16))
    value = {
        "name": "quick",
        "preprocess": Preprocess((16, 16), 20),
        "mean": other.mean + 1,
        "std": other.std * 2,
    }
    setattr(other, change, value[change])
    monkeypatch.setattr(objects, "load_model", lambda *args, **kwargs: other)
    plan = replace(cell(fakes.Counter()), model="quick" if change == "name" else "tiny")
    _, again, _ = run([plan], store)
    assert again[0].cell != ended[0].cell
    assert len(store.kept) == 2


@dataclass(frozen=True)
class Collapsing(fakes.Drawn):
    """Give scores that are not finite for few images."""

    def adapt(self, source, state, inputs):
        scores = inputs.draws.to(source.dtype)
        return Adapted(state, scores.where(scores[:, :1] > 0.05, torch.nan))


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_cell_noted_outlives_its_interruption(monkeypatch, whole):
    store, ended, _ = run([cell(Collapsing())])
    name, bad = (
        ended[0].cell,
        np.flatnonzero(np.array(store.writers[ended[0].cell].column("confidence")) == 0),
    )
    assert ended[0].status == "collapsed"
    batches = 5 if whole else int(bad.max()) // 8 + 1
    assert whole or batches < 5, "the rows after the interruption must be finite"
    killed = fakes.ListStore(die_after=batches)
    with monkeypatch.context() as patch:
        patch.setattr(killed, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run([cell(Collapsing())], killed)
    noted = killed.manifests[name]
    assert noted.status == "running"
    killed.manifests[name] = replace(noted, outcome=replace(noted.outcome, absolute_peak_mib=12.5))
    killed.die_after = None
    _, again, reporter = run([cell(Collapsing())], killed, resume=True)
    assert reporter.images == 37 - min(8 * batches, 37)
    assert again[0].status == "collapsed"
    outcome = killed.manifests[name].outcome
    assert (outcome.absolute_peak_mib, outcome.images_at_once) == (12.5, 8)


def interrupt(*arguments):
    raise KeyboardInterrupt


def test_every_batch_of_a_sequence_has_a_replay_batch_of_its_own():
    shifts = [FOG, SNOW, FOG._replace(severity=1)]
    plan = cell(fakes.Replay(), shifts, reset="never", batch_size=12, dataset=fakes.LABELLED)
    store, ended, _ = run([plan])
    seen = store.writers[ended[0].cell].column("confidence")
    firsts = [seen[first + start] for first in (0, 37, 74) for start in range(0, 37, 12)]
    assert len(set(firsts[:5])) == 5  # the 60 source images
    assert firsts[5:10] == firsts[:5]


def test_a_resumed_sequence_replays_what_it_would_have():
    plan = cell(fakes.Replay(), [FOG, SNOW], reset="image", dataset=fakes.LABELLED)
    whole, ended, _ = run([plan])
    killed = fakes.ListStore(die_after=7)
    with pytest.raises(KeyboardInterrupt):
        run([plan], killed)
    killed.die_after = None
    run([plan], killed, resume=True)
    one, other = (each.writers[ended[0].cell].column("confidence") for each in (whole, killed))
    assert one == other


def broken(*arguments, **options):
    raise RuntimeError("the plug-in broke\nand says why")


def leave(*arguments, **options):
    raise SystemExit(0)


def teach(self, source, state, inputs):
    logits = source.logits(inputs.images)
    return Adapted(state, logits, logits[:, 1:])


@pytest.mark.parametrize(
    ("name", "replacement", "detail"),
    [
        ("init", broken, "RuntimeError: the plug-in broke"),
        ("notes", broken, "RuntimeError: the plug-in broke"),
        ("adapted_tensors", broken, "RuntimeError: the plug-in broke"),
        ("view_policy", broken, "RuntimeError: the plug-in broke"),
        ("view_policy", lambda self: 3, "PluginError: Bad.view_policy must return"),
        ("notes", lambda self, source: {"rank": torch.zeros(2)}, "PluginError: Bad.notes must return"),
        ("notes", lambda self, source: 3, "PluginError: Bad.notes must return"),
        ("adapt", leave, "SystemExit: 0"),
        ("adapt", teach, "PluginError: Bad must give teacher scores of shape (8, 5), got (8, 4)"),
    ],
)
@pytest.mark.parametrize("reset", ["batch", "image"])
def test_a_method_that_breaks_anywhere_fails_its_cell_and_no_other(name, replacement, detail, reset):
    bad = type("Bad", (fakes.Same,), {name: replacement})
    cells = [cell(bad(), name="bad", reset=reset), cell(fakes.Counter())]
    store, ended, reporter = run(cells)
    assert [one.status for one in ended] == ["failed", "complete"]
    assert reporter.ended[0][2].startswith(detail)
    assert "Traceback" in store.manifests[ended[0].cell].error


def test_a_storage_error_stops_the_run(monkeypatch):
    def full(*arguments):
        raise StoreError("no space")

    monkeypatch.setattr(fakes.ListWriter, "append", full)
    with pytest.raises(StoreError, match="no space"):
        run([cell(fakes.Counter())])


def test_a_method_s_notes_stand_apart_from_the_harness_s_own():
    notes = {"demonstration": "mine", "engine": "fast"}
    noted = type("Noted", (fakes.Same,), {"notes": lambda self, source: notes})
    store, ended, _ = run([cell(noted())])
    found = store.manifests[ended[0].cell].notes
    assert found.demonstration is False
    assert found.of_method == notes


def test_a_baseline_is_one_by_its_own_card():
    @dataclass(frozen=True)
    class Heir(fakes.Same):
        """Predict the opposite of the source, under its card."""

        def adapt(self, source, state, inputs):
            return Adapted(state, -source.logits(inputs.images))

    store, ended, _ = run([cell(fakes.Same()), cell(Heir())])
    same, heir = (store.writers[one.cell] for one in ended)
    assert [store.manifests[one.cell].notes.baseline for one in ended] == [True, False]
    assert heir.column("source_prediction") == same.column("prediction")
    assert heir.column("prediction") != same.column("prediction")


def test_scores_that_are_not_finite_count_as_the_lowest():
    scores = torch.tensor([[0.1, float("inf"), 0.3], [float("nan"), 0.6, 0.4], [float("-inf"), 0.0, 0.0]])
    for output in ("logits", "probabilities", "votes"):
        columns = score_columns(scores, output)
        assert columns["prediction"].tolist() == [2, 1, 1]
        assert np.isfinite(columns["confidence"]).all()
        assert np.isfinite(columns["entropy"]).all()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"labels": np.full(37, 5)}, "labels from 0 to 4, got 5"),
        ({"labels": np.full(37, np.nan)}, "whole numbers as labels"),
        ({"ids": ["one"] * 37}, "distinct ids, got 'one' 37 times"),
    ],
)
def test_data_of_a_plug_in_is_checked_before_anything_is_computed_from_it(changed, sentence):
    def bad(request):
        images = fakes.Noise(request.shift)
        vars(images).update(changed)
        return images

    store, ended, reporter = run([cell(fakes.Same(), dataset=replace(fakes.NOISE, open=bad))])
    assert [one.status for one in ended] == ["failed"]
    assert sentence in reporter.ended[0][2]
    assert store.writers[ended[0].cell].batches == []
