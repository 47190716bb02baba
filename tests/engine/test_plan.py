# SPDX-License-Identifier: Apache-2.0
"""A dry run says what a run takes, from what like cells took, and how far such estimates are off."""

import pytest

from tta_bench.engine.estimate import Past, error_on_the_past, estimate
from tta_bench.reports.plan import plan_lines, plan_of

from . import fakes
from .fakes import FOG, SNOW, cell


def took(one, seconds, images=100):
    return Past(one, "a processor", seconds, 50.0, images)


def test_the_nearest_cells_give_the_estimate():
    here, there = cell(fakes.Counter(), [FOG]), cell(fakes.Counter(), [SNOW], batch_size=4)
    other = cell(fakes.Counter(), [FOG], batch_size=16)
    past = [took(here, 0.1), took(here, 0.3), took(here, 0.2), took(other, 9.0)]
    assert estimate(here, past)[:2] == (0.2, 3)
    assert estimate(there, past) == (pytest.approx(0.25), 4, "the same method and model")
    assert estimate(cell(fakes.Counter(), name="another"), past).seconds is None


def test_the_error_is_that_of_each_cell_estimated_from_all_others():
    one = cell(fakes.Counter())
    error = error_on_the_past([took(one, 1.0), took(one, 2.0), took(one, 2.0)])
    assert error.cells == 3
    assert error.median == pytest.approx(4 / 3)
    assert error.most == pytest.approx(2.0)
    assert error_on_the_past([took(one, 1.0)]) is None


def test_what_cannot_be_known_is_said():
    cells = [cell(fakes.Counter()), cell(fakes.Same(), name="same")]
    lines = list(plan_lines(plan_of(cells, [], lambda one: None), [], 1))
    assert lines[0].endswith("images not counted, its data are not here · cost not known")
    assert "without 2 cells whose data are not here" in lines[3]
    assert "holds no finished cell" in lines[-1]
    past = [took(cells[0], 0.5)]
    lines = list(plan_lines(plan_of(cells, past, lambda one: 7200), past, 4))
    assert lines[0].endswith("7,200 images · 60 min")
    assert "time: 60 min, 60 min in 4 processes, without 1 cell whose cost is not known" in lines
    assert lines[-1].startswith("how far such estimates are off is not known")
