# SPDX-License-Identifier: Apache-2.0
"""Cells in processes of this machine: the same numbers as in one, whatever happens to a process."""

from dataclasses import replace

import pytest

from tta_bench.api import run_cells
from tta_bench.errors import BadInputError, StoreError
from tta_bench.records.store import Store
from tta_bench.reports.crew import Crew
from tta_bench.reports.text import report_console
from tta_bench.spec import Controls

from .conftest import manifests, numbers, planned, ran

SHIFTS = ("pocket", "pocket-sketch")


@pytest.fixture
def deadly(tmp_path):
    """A file that lets the method ``dies`` kill its process, and the setting that names it."""
    file = tmp_path / "dies"
    file.touch()
    return file, f"dies.file={file}"


def test_two_processes_and_shards_give_the_numbers_of_one_though_a_process_dies(
    tmp_path, undisturbed, deadly, capsys
):
    file, setting = deadly
    cells = [*planned(["dies"], settings=(setting,)), *planned(["walk", "dice"], shifts=SHIFTS)]
    controls = Controls(output=str(tmp_path / "runs"), memory=False, threads=1, jobs=2, shards=3)
    with Crew(report_console()) as crew:
        ended = run_cells(cells, controls, crew=crew).ended
    assert [one.label for one in ended] == [cell.label for cell in cells]
    assert {one.status for one in ended} == {"complete"}
    assert not file.exists()
    found, stored = numbers(tmp_path / "runs"), manifests(tmp_path / "runs")
    ran(cells[:1], tmp_path / "whole")
    assert found == undisturbed | numbers(tmp_path / "whole")
    assert {one.machine.threads for one in stored.values()} == {1}
    assert {name: one.outcome.shards for name, one in stored.items()} == {"dies": 1, "walk": 1, "dice": 3}
    assert stored["dice"].outcome.computed == stored["walk"].outcome.computed == 24
    assert not list(tmp_path.glob("runs/shards/*"))
    assert len(list(tmp_path.glob("runs/scores/*"))) == 2
    shown = capsys.readouterr().out
    assert "[9/9]" in shown
    assert "its process died; it resumes" in shown
    assert "dice · pocket-bn · pocket · part 3/3: 8 images in" in shown
    assert {one.status for one in ran(cells, tmp_path / "runs")} == {"reused"}


@pytest.mark.slow
def test_a_process_that_dies_again_and_one_that_hangs_fail_their_cells_alone(tmp_path, deadly):
    file, setting = deadly
    settings = (setting, "dies.once=false")
    cells = planned(["dies", "hangs"], settings=settings)
    ended = ran(cells, tmp_path / "runs", retries=0, cell_timeout=4)
    assert [one.status for one in ended] == ["failed", "failed"]
    found = manifests(tmp_path / "runs")
    assert found["dies"].error == "the process that computed it died (killed, or out of memory)"
    assert found["hangs"].error == "it took longer than cell_timeout=4 seconds"
    file.unlink()
    (cell,) = planned(["dies"], settings=settings)
    assert ran([cell], tmp_path / "runs", resume=True)[0].status == "complete"


def test_what_other_processes_cannot_have_is_refused_in_one_sentence(tmp_path):
    cells = planned(["walk"])
    with pytest.raises(BadInputError, match="in the memory of this process, where no other can write"):
        ran(cells, "memory://runs", jobs=2)
    mine = replace(cells[0], in_process={"method": "a", "dataset": "b"})
    with pytest.raises(BadInputError, match="is an in-process cell: its dataset and method is an object"):
        ran([mine], tmp_path, cell_timeout=5)
    with pytest.raises(BadInputError, match="jobs must be 1 to"):
        Controls(jobs=0)


def test_a_refusal_of_a_worker_is_the_refusal_of_the_run(tmp_path):
    (cell,) = planned(["walk"])
    output = tmp_path / "runs"
    Store(str(output)).open(create=True)
    (output / "cells").write_text("a file in the place of a folder")
    with pytest.raises((StoreError, BadInputError), match="cells"):
        ran([cell], output, cell_timeout=60)
