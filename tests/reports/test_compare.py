# SPDX-License-Identifier: Apache-2.0
"""A comparison names the facts that differ, pairs the images that both sides have, and adjusts its tests."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tta_bench.errors import BadInputError
from tta_bench.records.store import Store
from tta_bench.reports.compare import compare, print_comparison

FOG, SNOW = "imagenet-c:fog:5", "imagenet-c:snow:5"


def correct(folder, cell):
    table = Store(folder).read(cell).to_pandas().set_index("image_id")
    return table.prediction == table.label


def told(comparison, width=100):
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=width))
    assert max(len(line.rstrip()) for line in file.getvalue().splitlines()) <= width
    return file.getvalue()


def subset(start, stop, rate=0.6):
    draw = np.random.default_rng([start, stop, int(rate * 100)])
    index = np.arange(start, stop)
    label = index % 10
    return {
        "image_id": [f"val/{number:08d}.png" for number in index],
        "label": label,
        "prediction": np.where(draw.random(len(index)) < rate, label, 11),
    }


def test_two_folders_against_the_definitions(cell):
    for name, shift in (("a", FOG), ("b", SNOW)):
        first = cell(f"one-{name}", folder="one", images=60, rate=0.5, cell={"shifts": (shift,)})
        second = cell(f"two-{name}", folder="two", images=60, rate=0.8, cell={"shifts": (shift,)})
    found = compare(first, second)
    assert found.facts == ()
    assert [row.shift for row in found.rows] == [FOG, SNOW, ""]
    p_values = []
    for row, name in zip(found.rows[:2], ("a", "b"), strict=True):
        left, right = correct(first, f"one-{name}"), correct(second, f"two-{name}")
        assert (row.images_first, row.images_second, row.common) == (60, 60, 60)
        assert (row.accuracy_first, row.accuracy_second) == pytest.approx((left.mean(), right.mean()))
        assert row.difference.value == pytest.approx(right.mean() - left.mean())
        assert row.difference.low < row.difference.value < row.difference.high
        exact = mcnemar([[0, int((left & ~right).sum())], [int((right & ~left).sum()), 0]], exact=True).pvalue
        assert row.p < exact
        p_values.append(row.p)
    mean = found.rows[2]
    adjusted = multipletests([*p_values, mean.p], method="holm")[1]
    assert [row.p_holm for row in found.rows] == pytest.approx(list(adjusted))
    assert mean.difference.value == pytest.approx(np.mean([row.difference.value for row in found.rows[:2]]))
    assert mean.p < min(p_values), "twice as many observations of the same images"
    assert found == compare(first, second)
    assert "mean over shifts" in " ".join(told(found, 80).split())
    assert "No protocol fact differs" in told(found)


def test_exchanging_the_sides_turns_the_sign(cell):
    one, two = cell("a", folder="one", rate=0.5), cell("b", folder="two", rate=0.9)
    (there,), (back,) = compare(one, two).rows, compare(two, one).rows
    assert there.difference.value == -back.difference.value > 0
    assert there.p == back.p


def test_equal_runs_differ_in_nothing(cell):
    one, two = cell("a", folder="one"), cell("a", folder="two")
    (row,) = compare(one, two).rows
    assert row.difference == (0.0, 0.0, 0.0)
    assert (row.p, row.p_holm) == (1.0, 1.0)


def test_facts_that_differ_come_first_and_comparable_ones_before_all(cell):
    one = cell("a", folder="one")
    two = cell("b", folder="two", protocol={"reset": "image", "images_used": 7}, cell={"preset": "x"})
    found = compare(one, two)
    assert [(fact.name, fact.kind, fact.first, fact.second) for fact in found.facts] == [
        ("images_used", "comparable", "100", "7"),
        ("reset", "column", "shift", "image"),
        ("preset", "cell", "", "x"),
    ]
    text = told(found)
    assert text.index("images_used") < text.index("reset") < text.index("second - first")
    assert "do not answer the same question" in text


def test_facts_are_compared_cell_by_cell(cell):
    for name, shift, first, second in (("a", FOG, 10, 20), ("b", SNOW, 20, 10)):
        one = cell(f"one-{name}", folder="one", cell={"shifts": (shift,)}, protocol={"batch_size": first})
        two = cell(f"two-{name}", folder="two", cell={"shifts": (shift,)}, protocol={"batch_size": second})
    (fact,) = compare(one, two).facts
    assert fact == ("batch_size", "column", "10; 20", "10; 20")


def test_only_common_images_count_and_their_number_is_told(cell):
    one = cell("a", folder="one", images=40, rows=subset(0, 40))
    two = cell("b", folder="two", images=30, rows=subset(20, 50, 0.9))
    (row,) = compare(one, two).rows
    assert (row.images_first, row.images_second, row.common) == (40, 30, 20)
    left, right = correct(one, "a"), correct(two, "b")
    common = left.index.intersection(right.index)
    assert (row.accuracy_first, row.accuracy_second) == (left[common].mean(), right[common].mean())
    text = told(compare(one, two))
    assert "20 common" in text
    assert "of 40, 30" in text
    assert "different images" in text


def test_no_common_image_is_an_error_or_a_note(cell):
    one = cell("a", folder="one", images=20, rows=subset(0, 20))
    two = cell("b", folder="two", images=20, rows=subset(20, 40))
    with pytest.raises(BadInputError, match="no image in common"):
        compare(one, two)
    for folder in ("one", "two"):
        cell(f"{folder}c", folder=folder, images=20, cell={"shifts": (SNOW,)})
    found = compare(one, two)
    assert [row.shift for row in found.rows] == [SNOW]
    assert len(found.disjoint) == 1
    assert "No image in common: tent pocket-bn imagenet-c imagenet-c:fog:5" in " ".join(told(found).split())


def test_two_cells_compare_two_methods(cell):
    one = cell("a", rate=0.5)
    two = cell("b", folder="two", rate=0.9, cell={"method": "zero", "variant": "views=8"})
    with pytest.raises(BadInputError, match="to compare different methods name them"):
        compare(one, two)
    (row,) = compare(f"{one}/cells/a", f"{two}/cells/b/").rows
    assert row.method == "tent vs zero views=8"
    assert row.model == "pocket-bn"


def test_seeds_are_averaged_and_tested_once_for_each_image(cell):
    for seed in (0, 1):
        first = cell(f"one{seed}", folder="one", cell={"seed": seed}, rate=0.5)
        second = cell(f"two{seed}", folder="two", cell={"seed": seed}, rate=0.6)
    (row,) = compare(first, second).rows
    assert row.accuracy_first == pytest.approx(
        np.mean([correct(first, f"one{seed}").mean() for seed in (0, 1)])
    )
    assert row.common == 40
    change = sum(
        correct(second, f"two{seed}").astype(int) - correct(first, f"one{seed}").astype(int)
        for seed in (0, 1)
    )
    flips = np.random.default_rng(0).choice([-1, 1], (20_000, len(change))) @ change.to_numpy()
    above, equal = (np.mean(one) for one in (abs(flips) > abs(change.sum()), abs(flips) == abs(change.sum())))
    assert row.p == pytest.approx(above + equal / 2, abs=0.015)


def test_what_only_one_side_has_is_named(cell):
    one, two = cell("a", folder="one"), cell("b", folder="two")
    cell("c", folder="one", cell={"method": "zero"})
    cell("d", folder="two", cell={"method": "memo"})
    found = compare(one, two)
    assert found.only_first == (f"zero pocket-bn imagenet-c {FOG}",)
    assert found.only_second == (f"memo pocket-bn imagenet-c {FOG}",)
    assert "Only in the first: zero" in told(found)


def test_an_ambiguous_side_asks_for_a_cell(cell):
    one = cell("a", folder="one")
    cell("b", folder="two")
    two = cell("c", folder="two", protocol={"batch_size": 1})
    with pytest.raises(BadInputError, match=r"one cell of tent .* has b and c; name one as .*/cells/b"):
        compare(one, two)
    assert len(compare(one, f"{two}/cells/c").rows) == 1


def test_other_labels_are_other_data(cell):
    one = cell("a", folder="one")
    two = cell("b", folder="two", rows={"label": (np.arange(40) + 1) % 10})
    with pytest.raises(BadInputError, match="other labels"):
        compare(one, two)


def test_a_side_without_finished_cells_is_refused(cell, make, tmp_path):
    Store(tmp_path / "two").open(create=True).write_manifest(make.manifest("b", status="failed"))
    with pytest.raises(BadInputError, match="at least one finished cell"):
        compare(cell("a"), str(tmp_path / "two"))
