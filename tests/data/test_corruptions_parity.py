# SPDX-License-Identifier: Apache-2.0
"""Replay of corruption goldens, and that the replay notices a deviation."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tta_bench.data.corruptions import CORRUPTIONS, EXTRA
from tta_bench.errors import BadInputError
from tta_bench.parity.corruptions import cases

GOLDEN = Path(__file__).parents[1] / "parity" / "corruptions"


@pytest.mark.portable
@pytest.mark.parametrize("name", CORRUPTIONS + EXTRA)
def test_the_goldens_are_met(name):
    results = list(cases(GOLDEN, name))
    assert results
    assert [result for result in results if not result.passed] == []
    assert {result.method for result in results} == {name}


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(GOLDEN, tmp_path / "copy")


def changed(path, change):
    with np.load(path) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez_compressed(path, **arrays)


def test_a_changed_output_does_not_pass(copy):
    def shift(arrays):
        arrays["imagenet/fog/5/out"] = arrays["imagenet/fog/5/out"] + np.uint8(3)
        arrays["cifar/spatter/5/out"] = 255 - arrays["cifar/spatter/5/out"]

    changed(copy / "injected.npz", shift)
    failed = {result.case for result in cases(copy) if not result.passed}
    assert failed == {"imagenet/fog/5", "cifar/spatter/5"}


def test_a_changed_picture_does_not_pass(copy):
    def swap(arrays):
        arrays["cifar/contrast/1/k32a.png"] = arrays["cifar/contrast/5/k32a.png"]

    changed(copy / "deterministic.npz", swap)
    assert [result.case for result in cases(copy, "contrast") if not result.passed] == [
        "cifar/contrast/1/k32a"
    ]


def test_changed_statistics_do_not_pass(copy):
    path = copy / "stochastic_stats.json"
    stats = json.loads(path.read_text())
    stats["entries"]["cifar/shot_noise/3/k32a"]["mean"][7] += 0.1
    stats["entries"]["cifar/frost/3/k32a"]["mean"][0] += 40
    path.write_text(json.dumps(stats))
    failed = {result.case for result in cases(copy) if not result.passed}
    assert failed == {"statistics/cifar/shot_noise/3/k32a", "statistics/cifar/frost/3/k32a"}


def test_a_case_of_another_kind_is_reported_as_not_replayed(copy):
    def add(arrays):
        arrays["imagenet/gaussian_noise/3/out"] = arrays["imagenet/fog/5/out"]

    changed(copy / "injected.npz", add)
    (result,) = [one for one in cases(copy, "gaussian_noise") if not one.case.startswith("statistics")]
    assert not result.passed
    assert "cannot be given" in result.note


def test_missing_parts_are_named(copy):
    changed(copy / "injected.npz", lambda arrays: arrays.pop("imagenet/snow/3/noise"))
    with pytest.raises(BadInputError, match="noise"):
        list(cases(copy, "snow"))
    changed(copy / "deterministic.npz", lambda arrays: arrays.pop("img_a64.png"))
    with pytest.raises(BadInputError, match="img_a64"):
        list(cases(copy, "contrast"))
