# SPDX-License-Identifier: Apache-2.0
"""Is adaptation worth it: gains, costs, too few images, and the rows that no other beats."""

import io

import pytest
from rich.console import Console

from tta_bench.reports.columns import Row
from tta_bench.reports.pareto import fronts, print_fronts
from tta_bench.reports.verdicts import verdicts

MACHINE = "a processor, 2 threads, torch 2.14"


def row(method, gain=0.0, half=0.01, **changes):
    base = {
        "method": method,
        "model": "m",
        "dataset": "d",
        "shifts": "d",
        "images": 400,
        "status": "complete",
    }
    base |= {
        "accuracy": 0.6 + gain,
        "accuracy_low": 0.55 + gain,
        "accuracy_high": 0.65 + gain,
        "machine": MACHINE,
    }
    base |= {"gain": gain, "gain_low": gain - half, "gain_high": gain + half, "ms_p50": 2.0, "peak_mib": 10.0}
    return Row(**(base | {"sees": "batch", "batch_size": 64} | changes))


SOURCE = row("source", half=0.0, ms_p50=1.0, peak_mib=5.0, sees="image")


def told(*rows):
    return [str(one) for one in verdicts(rows)]


def test_a_gain_is_told_with_its_interval_and_its_cost():
    (said,) = told(SOURCE, row("tent", 0.05))
    assert said == (
        "m on d: tent gains +5.0 points [+4.0, +6.0] at 2.0 times the time and 2.0 times the memory of the source "
        "model, in batches of 64."
    )


def test_a_cheaper_gain_stands_beside_the_largest():
    (said,) = told(SOURCE, row("cotta", 0.06, ms_p50=30.0), row("norm", 0.04, ms_p50=1.5), row("lame", -0.2))
    assert "cotta gains +6.0 points" in said
    assert "norm gains +4.0 points [+3.0, +5.0] at 1.5 times the time" in said
    assert "lame loses against the source model." in said


def test_too_few_images_say_how_many_would_do():
    # An interval of +-1 point over 400 images is a deviation of 0.1017; (0.1017 / 0.008)^2 * 7.849 + 2 = 1271
    (said,) = told(SOURCE, row("tent", 0.008))
    assert said == (
        "m on d: No method gains for certain; tent has +0.8 points [-0.2, +1.8] at 2.0 times the time and 2.0 times "
        "the memory of the source model, in batches of 64. 400 images are too few to judge tent; about 1,300 would "
        "show a difference of 0.8 points."
    )


def test_half_a_point_is_the_least_that_is_asked_for():
    (said,) = told(SOURCE, row("tent", 0.0001))
    assert "would show a difference of 0.5 points" in said


def test_several_methods_are_judged_together():
    # Alone p = 0.03; the best of five that are tried is not to be believed for that.
    gain = 0.011
    assert verdicts([SOURCE, row("tent", gain)])[0].judged[0].outcome == "gains"
    others = [row(name, 0.001) for name in ("a", "b", "c", "e")]
    assert verdicts([SOURCE, row("tent", gain), *others])[0].judged[0].outcome == "open"


def test_what_predicts_as_the_source_model_does():
    assert told(SOURCE, row("tent", 0.0, 0.0)) == ["m on d: tent predicts as the source model does."]


def test_what_only_loses():
    (said,) = told(SOURCE, row("tent", -0.05))
    assert said == "m on d: No method gains; the best, tent, has -5.0 points [-6.0, -4.0]."


@pytest.mark.parametrize(
    "rows",
    [
        (row("tent", 0.05),),
        (SOURCE, row("tent", 0.05, machine="another")),
        (SOURCE, row("tent", 0.05, ms_p50=None, peak_mib=None)),
    ],
)
def test_costs_that_do_not_compare_are_not_compared(rows):
    (said,) = told(*rows)
    assert said == "m on d: tent gains +5.0 points [+4.0, +6.0], in batches of 64."


def test_there_is_no_verdict_without_a_method():
    assert told(SOURCE) == []
    assert told(row("tent", 0.05, mixed=True), SOURCE) == []
    assert told(row("tent", status="failed", accuracy=None), SOURCE) == []
    assert told(row("tent", 0.05, status="incomplete"), SOURCE) == []
    assert [len(one.rows) for one in fronts([SOURCE, row("tent", 0.05, status="incomplete")])] == [1]


def test_a_row_that_another_beats_is_in_no_front():
    rows = [
        SOURCE,
        row("norm", 0.04, ms_p50=1.5),
        row("tent", 0.04, ms_p50=2.0),
        row("lame", -0.1, ms_p50=1.2),
        row("cotta", 0.06, ms_p50=30.0, peak_mib=4.0),
        row("memo", 0.05, ms_p50=90.0, sees="image"),
        row("far", 0.2, machine="another"),
    ]
    found = {(one.machine, one.alone): one for one in fronts(rows)}
    assert [one.method for one in found[MACHINE, False].rows] == ["cotta", "norm", "source"]
    assert [one.method for one in found[MACHINE, True].rows] == ["memo", "source"]
    assert [one.method for one in found["another", False].rows] == ["far"]
    assert found[MACHINE, False].beaten == 3
    assert [one.method for one in fronts(rows, "memory")[1].rows] == ["cotta"]


def test_fronts_are_printed_with_what_was_left_out():
    file = io.StringIO()
    rows = [SOURCE, row("norm", 0.04), row("tent", 0.03, noisy=True), row("x", 0.1, ms_p50=None)]
    print_fronts(fronts(rows), "time", Console(file=file, width=100))
    text = " ".join(file.getvalue().split())
    assert "d, images in batches, on a processor" in text
    assert "1 other row is no more accurate than one of these" in text
    assert "1 more without a measured time left out" in text
