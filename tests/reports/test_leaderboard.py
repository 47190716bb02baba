# SPDX-License-Identifier: Apache-2.0
"""Rows of a leaderboard follow from the records, whatever the order of folders, cells and files."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from torchmetrics.functional.classification import binary_calibration_error

from tta_bench.errors import BadInputError, MixedProtocolError, StoreError
from tta_bench.metrics.accuracy import wilson
from tta_bench.records.store import Store
from tta_bench.reports.csv_file import validate_leaderboard, write_csv
from tta_bench.reports.leaderboard import leaderboard
from tta_bench.spec.manifest import Load

FOG, SNOW = "imagenet-c:fog:5", "imagenet-c:snow:5"


def shifted(shift, **spec):
    return {"shifts": (shift,), **spec}


def frame(folder, *cells):
    store = Store(folder).open(create=False)
    table = pd.concat([store.read(cell).to_pandas() for cell in cells])
    table["correct"] = (table.prediction == table.label).astype(float)
    table["source_correct"] = (table.source_prediction == table.label).astype(float)
    return table


def test_one_shift_against_the_definitions(cell):
    import torch

    folder = cell("a", cell={"variant": "lr=0.01"})
    (row,) = leaderboard([folder])
    data = frame(folder, "a")
    assert (row.method, row.variant, row.model, row.dataset) == ("tent", "lr=0.01", "pocket-bn", "imagenet-c")
    assert (row.shifts, row.seeds, row.images, row.status) == ("fog:5", "0", 40, "complete")
    assert (row.accuracy, row.accuracy_low, row.accuracy_high) == wilson(int(data.correct.sum()), 40)
    assert row.source_accuracy == pytest.approx(data.source_correct.mean())
    change = data.correct - data.source_correct
    interval = stats.ttest_1samp(change, 0).confidence_interval(0.95)
    assert (row.gain, row.gain_low, row.gain_high) == pytest.approx((change.mean(), *interval))
    clocks = (data.adapt_ms.astype(float) + data.view_ms)[~data.warmup]
    assert len(clocks) == 0
    reference = binary_calibration_error(
        torch.tensor(data.confidence.to_numpy()),
        torch.tensor(data.correct.to_numpy(dtype=np.int64)),
        n_bins=15,
    )
    assert row.ece == pytest.approx(float(reference), abs=1e-6)
    assert (row.batch_size, row.reset, row.sees, row.severity) == (50, "shift", "batch", "5")
    assert (row.precision, row.device, row.weights) == ("float32", "cpu", "bbbbbbbb")
    assert (row.source_data, row.hyperparameters_chosen) == ("none", "published")
    assert row.init_ms == 2.0


def test_clocks_sum_the_parts_without_warmup_and_memory_is_the_highest(cell):
    parts = {"view_ms": np.arange(40.0), "adapt_ms": np.full(40, 2.0), "encode_ms": None, "predict_ms": None}
    warm = np.arange(40) < 10
    peak = [None] * 10 + [3.5] + [None] * 28 + [7.25]
    folder = cell("a", rows={**parts, "warmup": warm, "peak_mib": peak})
    (row,) = leaderboard([folder])
    expected = np.arange(10, 40) + 2.0
    assert row.ms_mean == pytest.approx(expected.mean())
    assert (row.ms_p50, row.ms_p95, row.ms_p99) == pytest.approx(tuple(np.percentile(expected, (50, 95, 99))))
    assert row.peak_mib == 7.25
    assert row.accuracy == pytest.approx(frame(folder, "a").correct.mean())  # warm-up rows count here


def test_without_clocks_and_memory_there_are_none(cell):
    (row,) = leaderboard([cell("a", rows=dict.fromkeys(("view_ms", "adapt_ms")) | {"warmup": False})])
    assert [row.ms_mean, row.ms_p50, row.ms_p95, row.ms_p99, row.peak_mib] == [None] * 5


def test_several_shifts_and_seeds_against_the_image_means(cell):
    for index, (shift, seed) in enumerate(itertools.product((FOG, SNOW), (0, 1, 2))):
        folder = cell(f"c{index}", cell=shifted(shift, seed=seed), outcome={"init_ms": float(index)})
    (row,) = leaderboard([folder])
    data = frame(folder, *(f"c{index}" for index in range(6)))
    means = data.groupby("image_id", observed=True).correct.mean()
    interval = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (row.shifts, row.seeds, row.images) == ("fog:5;snow:5", "0;1;2", 40)
    assert row.accuracy == pytest.approx(means.mean())
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx(tuple(interval))
    gains = means - data.groupby("image_id", observed=True).source_correct.mean()
    assert (row.gain_low, row.gain_high) == pytest.approx(
        tuple(stats.ttest_1samp(gains, 0).confidence_interval())
    )
    assert row.init_ms == 2.5


def test_by_shift_gives_one_row_each(cell):
    for index, shift in enumerate((SNOW, FOG)):
        folder = cell(f"c{index}", cell=shifted(shift), rate=0.3 + 0.5 * index)
    rows = leaderboard([folder], by="shift")
    assert [row.shifts for row in rows] == ["fog:5", "snow:5"]
    for row, name in zip(rows, ("c1", "c0"), strict=True):
        correct = frame(folder, name).correct
        assert (row.accuracy, row.accuracy_low, row.accuracy_high) == wilson(int(correct.sum()), 40)


def test_a_stream_of_shifts_equals_its_shifts_apart(cell):
    rows = {"shift": [FOG] * 20 + [SNOW] * 20, "image_id": [f"val/{index % 20}" for index in range(40)]}
    folder = cell("a", cell={"shifts": (FOG, SNOW)}, rows=rows)
    (whole,) = leaderboard([folder])
    fog, snow = leaderboard([folder], by="shift")
    assert (whole.images, whole.shifts) == (20, "fog:5;snow:5")
    assert whole.accuracy == pytest.approx((fog.accuracy + snow.accuracy) / 2)
    assert (fog.images, snow.images) == (20, 20)


def test_the_teacher_gain_needs_a_teacher_that_differs(cell):
    store_rows = {"teacher_prediction": np.arange(40) % 10, "teacher_confidence": np.full(40, 0.5)}
    (row,) = leaderboard([cell("a", rows=store_rows)])
    assert row.teacher_gain == pytest.approx(row.accuracy - 1.0)
    assert row.teacher_accuracy == 1.0
    assert row.teacher_gain_low < row.teacher_gain < row.teacher_gain_high
    same = np.arange(40) % 9
    rows = {"teacher_prediction": same, "source_prediction": same}
    (equal,) = leaderboard([cell("b", folder="equal", rows=rows)])
    assert equal.teacher_accuracy == equal.source_accuracy
    assert (equal.teacher_gain, equal.teacher_gain_low, equal.teacher_gain_high) == (None, None, None)


def test_the_gain_over_the_same_prompts_needs_a_text_side(cell):
    own = [0] * 20 + [None] * 20
    (without,) = leaderboard([cell("a", rows={"zero_shot_prediction": own})])
    assert (without.prompts_accuracy, without.prompts_gain, without.prompts_gain_low) == (None, None, None)
    folder = cell("b", folder="clip", protocol={"prompts": "p"}, rows={"zero_shot_prediction": own})
    data = frame(folder, "b")
    zero_shot = (np.where(np.arange(40) < 20, 0, data.source_prediction) == data.label).astype(float)
    (row,) = leaderboard([folder])
    assert row.prompts_accuracy == pytest.approx(zero_shot.mean())
    interval = stats.ttest_1samp(data.correct - zero_shot, 0).confidence_interval(0.95)
    assert (row.prompts_gain_low, row.prompts_gain_high) == pytest.approx(tuple(interval))
    assert row.prompts_gain == pytest.approx(row.accuracy - row.prompts_accuracy)
    (same,) = leaderboard([cell("c", folder="same", protocol={"prompts": "p"})])
    assert (same.prompts_gain, same.prompts_gain_low) == (same.gain, same.gain_low)


def test_a_row_says_that_its_features_were_cached_and_how_often_labels_were_looked_at(cell):
    cached = [False] * 10 + [True] * 30
    (row,) = leaderboard([cell("a", cell={"looks": 6}, rows={"cached": cached})])
    assert (row.cached, row.looks) == (True, 6)
    (row,) = leaderboard([cell("b", folder="fresh", rows={"cached": [False] * 40})])
    assert (row.cached, row.looks) == (False, None)
    assert leaderboard([cell("c", folder="images")])[0].cached is False


@pytest.mark.parametrize("by", ["dataset", "shift"])
@pytest.mark.filterwarnings("ignore:.* in both:tta_bench.errors.Caution")
def test_folders_in_any_order_give_the_same_bytes(cell, tmp_path, by):
    folders = set()
    for index, (method, shift) in enumerate(itertools.product(("tent", "source", "zero"), (FOG, SNOW))):
        for folder in {
            f"f{index % 3}",
            f"f{(index + 1) % 2}",
        }:  # some cells lie in two folders with other clocks
            times = {"adapt_ms": np.random.default_rng([index, len(folders)]).random(40)}
            facts = {"cell": shifted(shift, method=method), "started": f"2026-01-0{index + 1}T00:00:00Z"}
            folders.add(
                cell(
                    f"c{index}",
                    folder=folder,
                    rows=times | {"warmup": False},
                    **facts,
                    versions={"f": folder},
                )
            )
    written = set()
    for order in itertools.permutations(sorted(folders)):
        write_csv(leaderboard(order, by=by), tmp_path / "board.csv")
        written.add((tmp_path / "board.csv").read_bytes())
    assert len(folders) == 3
    assert len(written) == 1


@pytest.mark.filterwarnings("ignore:.* in both:tta_bench.errors.Caution")
def test_a_cell_in_two_folders_counts_once_and_must_agree(cell):
    folders = [cell("a", folder=name) for name in ("one", "two")]
    assert leaderboard(folders) == leaderboard(folders[:1]) == leaderboard([folders[0], folders[0]])
    bad = cell("a", folder="three", rows={"prediction": np.zeros(40, int)})
    with pytest.raises(StoreError) as caught:
        leaderboard([*folders, bad])
    assert "cell a" in str(caught.value)
    assert bad in str(caught.value)


@pytest.mark.filterwarnings("ignore:.* in both:tta_bench.errors.Caution")
def test_a_finished_copy_wins_over_an_unfinished_one(cell, make, tmp_path):
    done = cell("a")
    other = Store(tmp_path / "other").open(create=True)
    other.write_manifest(make.manifest("a", status="failed", started="2025-01-01T00:00:00Z"))
    assert leaderboard([str(tmp_path / "other"), done]) == leaderboard([done])


def test_failed_and_collapsed_cells_are_listed_without_numbers_and_running_ones_are_not(cell, make):
    folder = cell("a")
    store = Store(folder)
    for name, status in (("b", "failed"), ("c", "running")):
        store.write_manifest(make.manifest(name, status=status, cell={"method": name}))
    make.put_cell(store, make.manifest("d", status="collapsed", cell={"method": "d"}), make.records(40))
    found = {
        row.method: (row.status, row.accuracy, row.gain, row.images, row.ms_p50)
        for row in leaderboard([folder])
    }
    assert found.pop("tent")[0] == "complete"
    assert found == {"b": ("failed", *[None] * 4), "d": ("collapsed", *[None] * 4)}
    assert [row.method for row in leaderboard([folder], by="shift")] == ["tent", "b", "d"]


def test_the_order_is_dataset_model_source_then_accuracy(cell):
    for index, (dataset, model, method, rate) in enumerate(
        [
            ("b", "m", "source", 0.2),
            ("a", "n", "tent", 0.9),
            ("a", "m", "tent", 0.9),
            ("a", "m", "zero", 0.99),
            ("a", "m", "source", 0.1),
        ]
    ):
        folder = cell(
            f"c{index}", rate=rate, cell=shifted(f"{dataset}:x", dataset=dataset, model=model, method=method)
        )
    told = [(row.dataset, row.model, row.method) for row in leaderboard([folder])]
    assert told == [
        ("a", "m", "source"),
        ("a", "m", "zero"),
        ("a", "m", "tent"),
        ("a", "n", "tent"),
        ("b", "m", "source"),
    ]


def test_what_predicts_as_the_source_does_leads_only_where_there_is_no_source(cell):
    same = dict.fromkeys(("prediction", "source_prediction"), np.arange(40) % 10)
    cell("still", cell={"method": "still"}, rows=same)
    folder = cell("better", cell={"method": "better"}, rate=1.0)
    assert [row.method for row in leaderboard([folder])] == ["still", "better"]
    cell("source", cell={"method": "source"}, rate=0.3)
    assert [row.method for row in leaderboard([folder])] == ["source", "better", "still"]


def test_intervals_over_few_images_stay_within_what_a_gain_can_be(cell, tmp_path):
    rows = {"label": [0, 1, 2], "prediction": [0, 1, 0], "source_prediction": [1, 1, 0]}
    folder = cell("few", images=3, rows=rows)
    (row,) = leaderboard([folder])
    assert -1 <= row.gain_low < row.gain_high == 1
    write_csv([row], tmp_path / "few.csv")
    validate_leaderboard(tmp_path / "few.csv")


def test_column_facts_and_variants_make_rows_of_their_own(cell):
    cell("a")
    cell("b", protocol={"reset": "image", "batch_size": 1}, notes={"sees": "image"})
    cell("c", protocol={"source_data": "source_images"})
    cell("d", cell={"hyperparameters": {"lr": 1.0}, "variant": "lr=1.0"})
    folder = cell("e", cell={"method_hash": "9" * 64})
    rows = leaderboard([folder])
    told = {(row.reset, row.source_data, row.variant, row.sees) for row in rows}
    assert told == {
        ("shift", "none", "code=aaaaaaaa", "batch"),
        ("shift", "none", "code=99999999", "batch"),
        ("image", "none", "code=aaaaaaaa", "image"),
        ("shift", "source_images", "code=aaaaaaaa", "batch"),
        ("shift", "none", "lr=1.0", "batch"),
    }


@pytest.mark.parametrize("note", ["demonstration", "random_weights"])
def test_demonstrations_are_marked(cell, note):
    assert [row.demonstration for row in leaderboard([cell("a")])] == [False]
    assert [row.demonstration for row in leaderboard([cell("b", folder="f", notes={note: True})])] == [True]


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("images_used", 99),
        ("subset", "seeded-100"),
        ("order_hash", "other"),
        ("severity", (3,)),
        ("data_hash", "other"),
        ("data_seed", 7),
        ("origin", "generated"),
        ("scenario", "sequence"),
        ("class_list", "d"),
        ("label_mask", (1, 2)),
        ("precision", "float64"),
        ("device", "cuda"),
    ],
)
@pytest.mark.parametrize("by", ["dataset", "shift"])
def test_comparable_facts_that_differ_are_refused_or_marked(cell, fact, value, by):
    cell("a")
    cell("z", cell=shifted("other:x", dataset="other"))
    folder = cell("b", cell={"method": "zero"}, protocol={fact: value})
    with pytest.raises(MixedProtocolError) as caught:
        leaderboard([folder], by=by)
    message = str(caught.value)
    assert fact in message
    assert (value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))) in message
    assert "tent" in message
    assert "zero" in message
    assert "allow_mixed=True" in message
    marked = leaderboard([folder], by=by, allow_mixed=True)
    assert {row.dataset: row.mixed for row in marked} == {"imagenet-c": True, "other": False}
    assert len(marked) == 3
    assert [row.method for row in leaderboard([folder], by=by, cells={"a", "z"})] == ["tent", "tent"]


def test_a_row_over_images_of_two_origins_is_refused_or_marked(cell):
    cell("a")
    folder = cell("b", cell=shifted(SNOW), protocol={"origin": "generated from imagenet"})
    with pytest.raises(
        MixedProtocolError,
        match=r"origin of imagenet-c: as distributed \(imagenet-c:fog:5\) and generated .* \(imagenet-c:snow:5",
    ):
        leaderboard([folder])
    (row,) = leaderboard([folder], allow_mixed=True)
    assert (row.shifts, row.mixed) == ("fog:5;snow:5", True)
    assert row.origin == "as distributed;generated from imagenet"
    assert [row.mixed for row in leaderboard([folder], by="shift")] == [False, False]


def test_a_stream_over_images_of_two_origins_is_refused_too(cell):
    sequence = {"shifts": (FOG, SNOW), "scenario": "sequence"}
    folder = cell("a", cell=sequence, protocol={"origin": "as distributed; generated from imagenet"})
    with pytest.raises(MixedProtocolError, match="origin of imagenet-c"):
        leaderboard([folder])


def test_missing_images_are_no_origin_of_their_own_but_are_said(cell):
    cell("a", protocol={"origin": "as distributed, incomplete: 40 of 50,000 images"})
    folder = cell(
        "b", cell=shifted(SNOW), protocol={"origin": "as distributed, incomplete: 39 of 50,000 images"}
    )
    (row,) = leaderboard([folder])
    assert row.mixed is False
    assert row.origin.count("incomplete: ") == 2


def test_natural_and_corrupted_images_of_one_folder_may_share_a_row(cell):
    cell("a", cell=shifted("folder:x", dataset="folder:x"), protocol={"severity": ()})
    fog = shifted("folder:x:fog:5", dataset="folder:x")
    folder = cell("b", cell=fog, protocol={"origin": "generated from the user's images"})
    assert [row.mixed for row in leaderboard([folder])] == [False]


def test_the_same_method_under_two_protocols_is_two_rows(cell):
    cell("a")
    folder = cell("b", images=30, protocol={"images_used": 30})
    with pytest.raises(MixedProtocolError, match="images_used"):
        leaderboard([folder])
    assert sorted(row.images for row in leaderboard([folder], allow_mixed=True)) == [30, 40]


def test_seeds_may_have_their_own_order_and_shifts_their_own_severity(cell):
    cell("a", cell={"seed": 0})
    cell("b", cell={"seed": 1})
    folder = cell("c", cell=shifted("imagenet-c:fog:3"), protocol={"severity": (3,)})
    (row,) = leaderboard([folder])
    assert (row.seeds, row.severity, row.mixed) == ("0;1", "3;5", False)


def test_rows_over_other_shifts_are_no_table(cell):
    cell("a")
    cell("b", cell=shifted(SNOW))
    folder = cell("c", cell=shifted(FOG, method="zero"))
    with pytest.raises(
        MixedProtocolError, match=r"shifts of imagenet-c: fog:5 .zero. and fog:5;snow:5 .tent."
    ):
        leaderboard([folder])
    assert len(leaderboard([folder], by="shift")) == 3
    assert [row.mixed for row in leaderboard([folder], allow_mixed=True)] == [True, True]


def test_two_cells_of_one_row_and_seed_are_refused(cell):
    cell("a", protocol={"data_hash": "x"})
    folder = cell("b", protocol={"data_hash": "y"})
    with pytest.raises(MixedProtocolError, match="data_hash"):
        leaderboard([folder])
    assert len(leaderboard([folder], allow_mixed=True)) == 2


def test_a_wanted_cell_must_exist_and_a_folder_may_be_empty(cell, tmp_path):
    folder = cell("a")
    with pytest.raises(BadInputError, match="cell nope"):
        leaderboard([folder], cells={"nope"})
    Store(tmp_path / "empty").open(create=True)
    assert leaderboard([str(tmp_path / "empty")]) == []


def test_confidence_that_is_no_probability_has_no_calibration(cell):
    assert leaderboard([cell("a", rows={"confidence": np.full(40, 7.0)})])[0].ece is None
    assert leaderboard([cell("b", folder="f", rows={"confidence": np.full(40, 1.00001)})])[0].ece is not None


@pytest.mark.slow
def test_a_million_records_are_counted_right(make, tmp_path):
    store = make.run_folder(str(tmp_path / "million"))
    rows = leaderboard([store.url])
    assert sum(manifest.images for manifest in store.manifests()) == 1_000_000
    assert len(rows) == 10
    assert rows[0].method == "source"
    assert {(row.images, len(row.shifts.split(";"))) for row in rows} == {(5000, 20)}
    for row in rows:
        rate = 0.5 if row.method == "source" else 0.5 + 0.01 * int(row.method.removeprefix("method"))
        expected = rate  # wrong predictions are never the label
        assert math.isclose(row.accuracy, expected, abs_tol=0.01)
        assert row.accuracy_low < row.accuracy < row.accuracy_high
        assert row.accuracy_high - row.accuracy_low < 0.01
    assert len(leaderboard([store.url], by="shift")) == 200


def test_a_row_over_two_machines_has_no_costs(cell, make):
    clocks = {
        "adapt_ms": np.full(40, 2.0, np.float32),
        "warmup": np.zeros(40, bool),
        "peak_mib": np.full(40, 9.0),
    }
    other = replace(make.MACHINE, device_name="another processor")
    cell("a", rows=clocks, cell=shifted(FOG))
    (row,) = leaderboard([cell("a", rows=clocks, cell=shifted(FOG))])
    assert (row.ms_p50, row.peak_mib) == (2.25, 9.0)
    (row,) = leaderboard([cell("b", rows=clocks, cell=shifted(SNOW), machine=other)])
    assert row.machine.count(";") == 1
    assert (row.ms_mean, row.ms_p50, row.peak_mib, row.init_ms) == (None, None, None, None)
    assert row.accuracy is not None


@pytest.mark.parametrize(("waited", "noisy"), [(0.01, False), (0.4, True), (None, False)])
def test_a_row_is_noisy_if_one_of_its_cells_was(cell, waited, noisy):
    cell("a", cell=shifted(FOG))
    load = Load(before=1.0, after=1.0, waited=waited)
    (row,) = leaderboard([cell("b", cell=shifted(SNOW), outcome={"load": load})])
    assert row.noisy is noisy
