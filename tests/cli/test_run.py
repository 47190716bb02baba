# SPDX-License-Identifier: Apache-2.0
"""The main road through its real entry point."""

import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

FIVE = [argument for name in ("source", "norm", "tent", "clip", "apm") for argument in ("--method", name)]
FAULTY = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

from tta_bench.method import Adapted, Card, Method


@dataclass(frozen=True)
class Faulty(Method):
    """Raise at the third step."""

    card: ClassVar[Card] = Card(paper="none")

    def init(self, source, task):
        return {"steps": torch.zeros((), dtype=torch.int64)}

    def adapt(self, source, state, inputs):
        if state["steps"] == 2:
            raise RuntimeError("third step")
        return Adapted({"steps": state["steps"] + 1}, source.logits(inputs.images))
'''
SAME = ["image_id", "position", "label", "prediction", "confidence", "entropy", "source_prediction"]


def predictions(folder):
    """Return the columns that must not depend on anything but the specification, per cell."""
    found = {}
    for path in sorted(folder.glob("cells/*/records.parquet")):
        found[path.parent.name] = pq.read_table(path, columns=SAME).to_pydict()
    return found


def test_five_methods_give_one_table_and_their_records(tta_bench, tmp_path):
    folder = tmp_path / "runs"
    command = ("run", *FIVE, "--dataset", "pocket-c:fog:5", "--dataset", "pocket-sketch", "--limit", 20)
    done = tta_bench(*command, "--output", folder)
    assert done.code == 0, done.err
    first = done.out.splitlines()[0]
    assert "severity 5" in first
    assert "first-20 images per shift" in first
    assert "apm on pocket-clip: reset per image, 20 images at a time" in " ".join(done.out.split())
    for name in ("source", "norm", "tent", "clip", "apm", "pocket-c", "pocket-sketch", "leaderboard.csv"):
        assert name in done.out
    assert "PocketScenes" in done.out
    cells = predictions(folder)
    assert len(cells) == 10
    assert all(len(cell["prediction"]) == 20 for cell in cells.values())
    assert (folder / "leaderboard.csv").stat().st_size > 0
    again = tta_bench(*command, "--output", folder)
    assert "0 cells computed, 10 reused" in again.out
    assert predictions(folder) == cells


def test_apm_records_its_teacher_beside_it(tta_bench, tmp_path):
    done = tta_bench(
        "run", "--method", "apm", "--dataset", "pocket", "--limit", 8, "--output", tmp_path / "runs"
    )
    assert done.code == 0
    table = pq.read_table(next(tmp_path.glob("runs/cells/*/records.parquet")))
    assert table["teacher_prediction"].null_count == 0
    assert table["teacher_prediction"].to_pylist() == table["source_prediction"].to_pylist()


def test_a_plugin_that_raises_fails_its_cells_alone(tta_bench, tmp_path):
    path, folder = tmp_path / "faulty.py", tmp_path / "runs"
    path.write_text(FAULTY)
    done = tta_bench(
        "run", "--plugin", path, "--method", "faulty", "--method", "source", "--dataset", "pocket", "--limit", 40,
        "--batch-size", 10, "--output", folder,
    )  # fmt: skip
    assert done.code == 1
    assert "third step" in done.out
    manifests = [json.loads(one.read_text()) for one in folder.glob("cells/*/manifest.json")]
    statuses = {manifest["cell"]["method"]: manifest["status"] for manifest in manifests}
    assert statuses == {"faulty": "failed", "source": "complete"}
    failed = next(manifest for manifest in manifests if manifest["status"] == "failed")
    assert "RuntimeError: third step" in failed["error"]
    assert "Traceback" not in done.err


def test_a_configuration_file_gives_options_and_the_command_line_wins(tta_bench, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("methods: [source]\ndatasets: [pocket]\nlimit: 30\nbatch_size: 7\n")
    done = tta_bench("run", "--config", path, "--limit", "12", "--output", tmp_path / "runs")
    assert done.code == 0
    manifest = json.loads(next(tmp_path.glob("runs/cells/*/manifest.json")).read_text())
    assert manifest["images"] == 12
    assert manifest["cell"]["batch_size"] == 7


def test_a_dry_run_names_the_cells_and_writes_nothing(tta_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = tta_bench("run", "--method", "tent", "--dataset", "pocket-c", "--dry-run")
    assert done.code == 0
    assert done.out.count("tent · pocket-bn · pocket-c:") == 15
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_estimates_from_the_run_folder(tta_bench, tmp_path):
    command = ("run", "--method", "source", "--method", "neo", "--output", tmp_path / "runs", "--no-memory")
    for shift in ("pocket-c:fog", "pocket-c:snow"):
        assert tta_bench(*command, "--dataset", shift, "--limit", 8).code == 0
    said = tta_bench(*command, "--dataset", "pocket-c", "--dry-run").out
    assert said.count("source · pocket-bn · pocket-c:") == 15
    images = 30 * 200
    assert f"images: {images:,}" in said
    assert "estimated from 4 finished cells" in said
    assert "30 from cells of the same method" in said
    assert "finished cells from all others were off by a factor of" in said


def test_listing_and_describing(tta_bench):
    listed = tta_bench("list", "methods").out
    assert all(name in listed for name in ("source", "clip", "norm", "tent", "apm"))
    assert "pocket-sketch" in tta_bench("list", "datasets").out
    assert "open_clip" in tta_bench("list", "models").out
    described = tta_bench("describe", "tent").out
    assert "arXiv:2006.10726" in described
    assert "imagenet-c" in described
    assert "MiB at the start on pocket-bn" in described
    assert "none: every step starts afresh" in tta_bench("describe", "zero").out


def test_a_dataset_is_described_with_its_origin(tta_bench):
    described = " ".join(tta_bench("describe", "pocket-fashion-c").out.split())
    for said in (
        "T-shirt/top",
        "gaussian_noise",
        "pocket-fashion-bn",
        "MIT",
        "arXiv:1708.07747",
        "github.com/zalando",
    ):
        assert said in described
    assert "The split is not the official one" in described
    described = " ".join(tta_bench("describe", "pacs").out.split())
    assert "none, so methods that need them cannot run" in described
    assert "severities" not in described


@pytest.mark.parametrize(
    ("name", "sentences"),
    [
        ("objectnet", ["12 of the 113 differ", "18,574 of the 50,273", "images 18,574"]),
        ("imagenet-d", ["40 of the 109 differ", "clipart 16,049, infograph 15,700"]),
        ("imagenet-c", ["images 50,000 each"]),
        ("pocket-c", []),
    ],
)
def test_a_dataset_is_described_with_its_count_and_its_names(tta_bench, name, sentences):
    done = tta_bench("describe", name)
    described = " ".join(done.out.split())
    assert described.startswith(f"{name} "), "no markup is printed as text"
    assert all(sentence in described for sentence in sentences)


@pytest.mark.filterwarnings("default::tta_bench.errors.Caution")
def test_cautions_are_said_at_the_end_of_a_run(tta_bench, tmp_path):
    command = (
        "run",
        "--method",
        "norm",
        "--dataset",
        "pocket",
        "--batch-size",
        1,
        "--limit",
        2,
        "--no-memory",
    )
    done = tta_bench(*command, "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    assert "Caution (1 cell): norm adapts the BatchNorm layers of pocket-bn at batch_size=1" in done.out


def test_real_images_run_without_a_download_on_their_own_network(tta_bench, tmp_path):
    done = tta_bench(
        *("run", "--method", "norm", "--method", "eata", "--dataset", "pocket-fashion-c:contrast"),
        *("--limit", "100", "--output", tmp_path),
    )
    assert done.code == 0, done.err
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("cells/*/manifest.json")]
    assert {manifest["cell"]["model"] for manifest in manifests} == {"pocket-fashion-bn"}
    assert not any(manifest["notes"]["demonstration"] for manifest in manifests)
    assert "nothing about photographs" not in done.out


def test_methods_of_forward_passes_alone_can_be_listed(tta_bench):
    listed = tta_bench("list", "methods", "--no-gradients", "--csv").out
    names = {line.partition(",")[0] for line in listed.splitlines()[1:]}
    assert {"neo", "foa", "norm", "unmix-tns", "source"} <= names
    assert not names & {"tent", "unmix-tns-tent", "actmad", "apm"}
    refused = tta_bench("list", "datasets", "--no-gradients")
    assert refused.code == 2
    assert "apply to methods only, got datasets" in refused.err


def test_methods_are_found_by_category_and_need(tta_bench):
    def names(*options):
        listed = tta_bench("list", "methods", "--csv", *options)
        assert listed.code == 0
        return {line.partition(",")[0] for line in listed.out.splitlines()[1:]}

    viewed = names("--needs", "views", "--category", "episodic")
    assert {"tpt", "memo", "zero"} <= viewed
    assert not viewed & {"tent", "clip", "dynaprompt"}
    assert names("--needs", "views", "--needs", "reward") == {"rlcf"}
    assert names("--category", "transductive") >= {"lame"}
    for options in (("--needs", "nothing"), ("--category", "offline")):
        refused = tta_bench("list", "methods", *options)
        assert refused.code == 2
        assert f"{options[1]!r}" in refused.err


def test_listing_imports_no_torch():
    code = (
        "import sys\nfrom tta_bench.cli import app\n"
        "for kind in ('methods', 'datasets', 'models'):\n    app(['list', kind], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tent" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("method", ["apm", "tent"])
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, method):
    command = [sys.executable, "-m", "tta_bench", "run", "--method", method, "--dataset", "pocket-c:fog"]
    command += ["--limit", "120", "--batch-size", "2", "--no-memory"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    environment = os.environ | {"TTA_BENCH_FLUSH_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--output", whole], check=True, capture_output=True, env=environment)
    process = subprocess.Popen([*command, "--output", killed], stdout=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not list(killed.glob("cells/*/part-00005.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(killed.glob("cells/*/records.parquet"))
    resumed = [*command, "--output", killed, "--resume"]
    done = subprocess.run(resumed, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert predictions(killed) == predictions(whole)
