# SPDX-License-Identifier: Apache-2.0
"""Methods are compared with a baseline on the images that both saw, over any number of run folders."""

import numpy as np
import pytest

import tta_bench as tb
from tta_bench.errors import BadInputError, MixedProtocolError, UnknownNameError
from tta_bench.metrics.paired import holm
from tta_bench.records.store import Store

FOG, SNOW = "imagenet-c:fog:5", "imagenet-c:snow:5"


def hits(folder, cell):
    table = Store(folder).read(cell).to_pandas().set_index("image_id")
    return (table.prediction == table.label).astype(int)


@pytest.fixture
def runs(cell):
    """Two run folders: tent on 60 images under two shifts, and mine on 40 of them."""
    for name, shift in (("fog", FOG), ("snow", SNOW)):
        one = cell(f"tent-{name}", folder="one", images=60, rate=0.5, cell={"shifts": (shift,)},
                   protocol={"images_used": 60, "subset": "first-60", "order_hash": "x"})  # fmt: skip
        two = cell(f"mine-{name}", folder="two", rate=0.9, cell={"shifts": (shift,), "method": "mine"},
                   protocol={"images_used": 40, "subset": "first-40", "order_hash": "y"})  # fmt: skip
    return one, two


def test_two_methods_of_two_folders_shift_by_shift_and_overall(tta_bench, runs):
    found = tb.load(*runs).compare("mine", "tent")
    rows = found.comparison.rows
    assert [(row.method, row.shift, row.common) for row in rows] == [
        ("mine vs tent", FOG, 40), ("mine vs tent", SNOW, 40), ("mine vs tent", "", 40),
    ]  # fmt: skip
    change = [hits(runs[1], f"mine-{name}") - hits(runs[0], f"tent-{name}") for name in ("fog", "snow")]
    for row, one in zip(rows, change, strict=False):
        assert row.difference.value == pytest.approx(one.mean())
    overall = (change[0] + change[1]).dropna() / 2
    assert rows[2].difference.value == pytest.approx(overall.mean())
    assert rows[2].difference.low < rows[2].difference.value < rows[2].difference.high
    assert [row.p_holm for row in rows] == pytest.approx(holm([row.p for row in rows]))
    done = tta_bench("compare", *runs, "--methods", "tent,mine")
    assert done.code == 0, done.err
    assert done.out.rstrip() == str(found)
    assert "mine - tent" in done.out
    assert "mean over shifts" in done.out
    assert tta_bench("compare", *runs, "--methods", "mine", "--baseline", "tent").out == done.out
    frame = found.frame()
    assert list(frame["effect"]) == [row.difference.value for row in rows]


def test_the_overall_row_draws_an_image_with_all_its_shifts(cell):
    """The same answers under both shifts are no new evidence, and do not narrow the interval."""
    for name, shift in (("a", FOG), ("b", SNOW)):
        cell(f"t{name}", rate=0.5, cell={"shifts": (shift,)})
        folder = cell(f"m{name}", rate=0.9, cell={"shifts": (shift,), "method": "mine"})
    one, other, both = tb.load(folder).compare("mine", "tent").comparison.rows
    assert one.difference == other.difference == both.difference
    assert one.p == pytest.approx(both.p)


def test_more_methods_share_a_baseline_and_one_family(tta_bench, cell):
    folder = cell("a", rate=0.5)
    for name, rate in (("mine", 0.9), ("zero", 0.7)):
        cell(name, rate=rate, cell={"method": name})
    found = tb.load(folder).compare(baseline="tent").comparison
    assert [row.method for row in found.rows] == ["mine vs tent", "zero vs tent"]
    assert [row.p_holm for row in found.rows] == pytest.approx(holm([row.p for row in found.rows]))
    assert "method - baseline" in tta_bench("compare", folder, "--baseline", "tent").out


@pytest.mark.parametrize(
    ("protocol", "fact"),
    [({"severity": (3,)}, "severity"), ({"device": "cuda"}, "device"), ({"order_hash": "z"}, "order_hash"),
     ({"data_hash": "z"}, "data_hash")],
)  # fmt: skip
def test_what_may_not_be_compared_is_refused(tta_bench, cell, protocol, fact):
    folder = cell("a")
    cell("b", cell={"method": "mine"}, protocol=protocol)
    with pytest.raises(MixedProtocolError, match=fact):
        tb.load(folder).compare("mine", "tent")
    done = tta_bench("compare", folder, "--methods", "tent,mine")
    assert done.code == 2
    assert "--allow-mixed" in done.err
    told = tta_bench("compare", folder, "--methods", "tent,mine", "--allow-mixed")
    assert told.code == 0
    assert fact in told.out


def test_variants_and_versions_of_code_have_names(cell):
    folder = cell("a", rate=0.5)
    cell("b", rate=0.9, cell={"variant": "lr=1,steps=2"})
    rows = tb.load(folder).compare("tent[lr=1,steps=2]", "tent").comparison.rows
    assert rows[0].method == "tent[lr=1,steps=2] vs tent"
    for code in ("b", "c"):
        cell(code * 2, cell={"method": "mine", "method_hash": code * 64})
    with pytest.raises(BadInputError, match=r"2 variants, mine\[code=bbbbbbbb\] and mine\[code=cccccccc\]"):
        tb.load(folder).compare("mine", "tent")
    assert tb.load(folder).compare("mine[code=cccccccc]", "tent").comparison.rows


def test_only_seeds_that_both_have_count(cell):
    for seed in (0, 1):
        folder = cell(f"t{seed}", rate=0.5, cell={"seed": seed})
    cell("m", rate=0.9, cell={"method": "mine", "seed": 1})
    (row,) = tb.load(folder).compare("mine", "tent").comparison.rows
    assert row.accuracy_first == hits(folder, "t1").mean()


def test_methods_of_other_models_are_compared_where_each_has_one(cell):
    folder = cell("a")
    cell("b", cell={"method": "mine", "model": "pocket-gn"})
    (row,) = tb.load(folder).compare("mine", "tent").comparison.rows
    assert row.model == "pocket-gn vs pocket-bn"


def test_what_cannot_be_compared_is_said_in_one_sentence(tta_bench, cell):
    folder = cell("a")
    cell("b", cell={"method": "mine", "shifts": (SNOW,)})
    for words, sentence in [
        (("--methods", "tnt,mine"), "unknown method of these runs 'tnt'; did you mean 'tent'?"),
        (("--methods", "tent"), "a comparison needs two methods or more, got tent"),
        (("--methods", "tent,mine"), "tent and mine should share a model, a shift and a seed"),
        ((), "compare takes two run folders, or any number with --methods A,B, got 1"),
    ]:
        done = tta_bench("compare", folder, *words)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert sentence in done.err
    with pytest.raises(UnknownNameError):
        tb.load(folder).compare("mine", "other")
    cell("c", protocol={"batch_size": 1})
    with pytest.raises(BadInputError, match="a and c, which differ in batch_size"):
        tb.load(folder).compare("mine", "tent")


def test_a_seed_of_the_bootstrap_is_kept(cell):
    folder = cell("a", rate=0.5)
    cell("b", rate=0.9, cell={"method": "mine"})
    first, again = (tb.load(folder).compare("mine", "tent", seed=3).frame() for _ in range(2))
    assert first.equals(again)
    assert np.isfinite(first[["effect_low", "effect_high"]].to_numpy()).all()
