# SPDX-License-Identifier: Apache-2.0
"""``--device``: a run on the double of a CUDA device predicts what the CPU does; a device that is not there is told."""

import pytest
import torch

import tta_bench as tb
from tta_bench.testing import device_double

METHODS = ("tent", "tpt", "apm")
RUN = (
    "run",
    "--dataset",
    "pocket-c:brightness:3",
    "--limit",
    "6",
    "--batch-size",
    "3",
    "--no-memory",
    "--workers",
    "0",
)
NAMED = tuple(part for name in METHODS for part in ("--method", name))


def predictions(folder):
    results = tb.load(str(folder))
    frame, names = results.frame(["cell", "image_id", "prediction"]), {}
    for one in results.manifests():
        rows = frame[frame["cell"] == one.id].sort_values("image_id")
        names[one.cell.method] = (one.protocol.device, rows["prediction"].tolist())
    return names


def test_a_run_on_cuda_predicts_what_the_cpu_does(tta_bench, tmp_path):
    assert tta_bench(*RUN, *NAMED, "--output", tmp_path / "cpu").code == 0
    with device_double():
        done = tta_bench(*RUN, *NAMED, "--device", "cuda:0", "--output", tmp_path / "cuda")
    assert done.code == 0, done.err
    there, here = predictions(tmp_path / "cuda"), predictions(tmp_path / "cpu")
    assert {name: device for name, (device, _) in there.items()} == dict.fromkeys(METHODS, "cuda")
    assert [there[name][1] for name in METHODS] == [here[name][1] for name in METHODS]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_one_sentence(tta_bench, tmp_path):
    done = tta_bench(*RUN, "--method", "source", "--device", "cuda:1", "--output", tmp_path / "runs")
    assert done.code == 2
    assert "cuda:1 needs a CUDA device, and torch finds none here; use" in done.err
    assert "--device" in done.err
    assert not (tmp_path / "runs").exists()


def test_doctor_lists_the_devices_of_each_kind(tta_bench):
    with device_double("mps"):
        shown = tta_bench("doctor").out
    assert "Metal" in shown
    assert "xpu" in shown
