# SPDX-License-Identifier: Apache-2.0
"""The table fits its console, keeps what matters, and says what a reader has to know."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tta_bench.metrics.accuracy import wilson
from tta_bench.reports.columns import Row
from tta_bench.reports.table import print_table
from tta_bench.reports.text import PLAIN_WIDTH, Signs, measured, percent, report_console

PLAIN = Signs("±", "–")


def row(**changes):
    base = {
        "method": "tent",
        "variant": "lr=0.001",
        "model": "pocket-bn",
        "dataset": "pocket-c",
        "images": 400,
    }
    base |= {"shifts": "fog:5;snow:5", "accuracy": 0.7412, "accuracy_low": 0.72, "accuracy_high": 0.76}
    base |= {"source_accuracy": 0.63, "gain": 0.1112, "gain_low": 0.1, "gain_high": 0.122, "ms_p50": 3.123}
    base |= {"ms_p95": 4.56, "batch_size": 50, "peak_mib": 120.7, "sees": "batch", "status": "complete"}
    return Row(**(base | changes))


SOURCE = row(
    method="source",
    variant="",
    sees="image",
    gain=0.0,
    gain_low=0.0,
    gain_high=0.0,
    accuracy=0.63,
    accuracy_low=0.61,
    accuracy_high=0.65,
)
APM = row(
    method="apm",
    variant="iterations=20,lr=0.003,size=pocket",
    model="pocket-clip",
    sees="image",
    teacher_accuracy=0.7651,
    teacher_gain=-0.0021,
    teacher_gain_low=-0.009,
    teacher_gain_high=0.005,
    ms_p50=41.23,
)
FAILED = row(
    method="eata", status="failed", **dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "gain"))
)
ROWS = [SOURCE, row(), APM, FAILED]


def printed(rows, width, **options):
    file = io.StringIO()
    print_table(rows, Console(file=file, width=width, **options))
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 140])
def test_what_matters_is_there_at_every_width(width):
    text = printed(ROWS, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for needed in (
        "source",
        "tent (lr=0.001)",
        "apm (iterations=20,",
        "pocket-bn",
        "pocket-clip",
        "pocket-c",
        "failed",
    ):
        assert needed in text
    for number in (
        "74.1 ± 2.0",
        "+11.1 ± 1.1",
        "-0.2 ± 0.7",
        "3.12@50",
        "41.2@50",
        "image",
        "batch",
        "2 shifts",
    ):
        assert number in text, number
    assert "…" not in text
    assert ("peak" in text.split("──")[0]) == (width >= 140)
    assert ("Left out at this width:" in text) == (width < 140)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_long_names_wrap_and_are_not_cut(width):
    long = "timm/vit_base_patch16_clip_quickgelu_224.openai_ft_in12k_in1k"
    rows = [row(model=long), row(model="hf-hub:somebody/another-very-long-model-name-of-theirs"), APM]
    text = printed(rows, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "74.1 ± 2.0" in text
    assert "timm/vit_base_patch16" in text
    assert "openai_ft_in12k_in1k" in text.replace("\n", "").replace(" ", "") or width < 140


def test_every_column_stands_where_the_width_allows_and_none_is_left_out():
    text = printed(ROWS, 200)
    for title in (
        "accuracy",
        "vs source",
        "vs teacher",
        "p50@batch",
        "p95",
        "peak",
        "MiB",
        "images",
        "sees",
        "method",
    ):
        assert title in text
    assert "Left out" not in text
    assert "400" in text
    assert "121" in text


def test_the_teacher_column_is_there_only_if_a_row_has_it():
    assert "vs teacher\n" not in printed([SOURCE, row()], 140).replace(" ", "\n")
    header = printed([SOURCE, row()], 140).split("──")[0]
    assert "teacher" not in header
    assert "teacher" in printed(ROWS, 140).split("──")[0]


def test_missing_images_are_said_below_the_table():
    text = printed([row(origin="as distributed, incomplete: 5 of 50,000 images"), row(method="norm")], 100)
    assert "Images of pocket-c are missing" in text
    assert "are missing" not in printed([row(origin="as distributed")], 100)


def test_by_shift_names_the_shift_of_each_row():
    text = printed([row(shifts="fog:5"), row(shifts="gaussian_noise:5")], 100)
    assert "fog:5" in text
    assert "gaussian_noise:5" in text
    assert "model pocket-bn, dataset pocket-c" in text


def test_footers_say_what_has_to_be_known():
    assert "Do not rank methods that see" in printed(ROWS, 100)
    assert "Do not rank methods that see" not in printed([row(), row(method="eata")], 100)
    assert "demonstration" not in printed(ROWS, 100)
    demonstration = printed([row(demonstration=True), row(method="eata")], 100)
    assert "pocket-bn*" in demonstration
    assert "* demonstration: PocketScenes or random weights" in demonstration
    assert "do not rank them" in printed([row(mixed=True)], 100)
    assert "do not rank them" not in printed(ROWS, 100)
    assert "latency is batch size 1" not in printed([row(batch_size=1)], 100)


def test_the_source_is_not_compared_with_itself():
    line = next(line for line in printed(ROWS, 140).splitlines() if line.startswith("source"))
    assert "±" in line
    assert "+" not in line


def test_nothing_to_report_is_said():
    assert printed([], 80) == "No finished cell to report.\n"


def test_names_are_not_read_as_markup():
    assert "[bold]x" in printed([row(method="[bold]x")], 140)


def test_a_pipe_gets_plain_text_of_120_columns():
    file = io.StringIO()
    console = report_console(file)
    print_table(ROWS, console)
    assert console.width == PLAIN_WIDTH == 120
    assert "\x1b" not in file.getvalue()
    assert max(len(line) for line in file.getvalue().splitlines()) <= 120


def test_a_terminal_keeps_its_own_width():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert report_console(Terminal()).is_terminal


def test_an_ascii_output_gets_ascii():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    print_table(ROWS, Console(file=file, width=100))
    file.flush()
    assert b"74.1 +/- 2.0" in raw.getvalue()


@pytest.mark.parametrize(
    ("value", "low", "high", "signed", "told"),
    [
        (0.635, 0.621, 0.649, False, "63.5 ± 1.4"),
        (0.112, 0.104, 0.12, True, "+11.2 ± 0.8"),
        (-0.04, -0.047, -0.033, True, "-4.0 ± 0.7"),
        (-0.0001, -0.01, 0.01, True, "0.0 ± 1.0"),
        (0.5, None, None, False, "50.0"),
        (0.0, 0.0, 0.0, True, "0.0"),
        (None, None, None, True, "–"),
    ],
)
def test_percent(value, low, high, signed, told):
    assert percent(value, low, high, PLAIN, signed=signed) == told


@pytest.mark.parametrize(
    ("value", "told"), [(None, "–"), (0.123, "0.12"), (12.34, "12.3"), (1234.5, "1234"), (0, "0.00")]
)
def test_measured(value, told):
    assert measured(value, PLAIN) == told


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((0.635, 0.62, 0.65), "63.5 ± 1.5"),
        (wilson(200, 200), "100.0 [98.1, 100.0]"),
        (wilson(0, 20), "0.0 [0.0, 16.1]"),
        ((0.5, 0.5, 0.5), "50.0"),
    ],
)
def test_an_asymmetric_interval_is_printed_by_its_ends(interval, text):
    assert percent(*interval, Signs("±", "–"), signed=False) == text


def test_an_asymmetric_gain_keeps_its_signs():
    assert percent(-0.3, -1.0, 0.6, Signs("±", "–"), signed=True) == "-30.0 [-100.0, +60.0]"


def test_times_that_other_work_disturbed_are_marked():
    text = printed([SOURCE, row(noisy=True)], 140)
    assert "~3.12@50" in text
    assert text.count("~3.12") == 1
    assert "these times are too long" in text
    assert "~" not in printed([SOURCE, row()], 140)


def test_times_of_several_machines_say_whose_they_are():
    here, there = "a laptop, 8 threads, torch 2.14", "NVIDIA H200, 1 threads, torch 2.15"
    text = printed(
        [row(machine=here), row(machine=there, ms_p50=0.5), row(machine=f"{here};{there}", ms_p50=None)], 140
    )
    lines = text.splitlines()
    assert "on" in text.split("──")[0]
    assert [line.split()[-1] for line in lines if "@50" in line and "3.12" in line] == ["b"] or " b" in text
    assert f"compare within one machine only (a: {there}; b: {here})" in " ".join(text.split())
    assert "within one machine" not in printed([row(machine=here), SOURCE], 140)


@pytest.mark.parametrize("width", range(60, 180, 3))
def test_no_number_is_cut_at_any_width(width):
    text = printed(ROWS, width)
    assert max(len(line) for line in text.splitlines()) <= width
    for number in ("74.1 ± 2.0", "63.0 ± 2.0", "+11.1 ± 1.1"):
        assert number in text
    assert "…" not in text
