# SPDX-License-Identifier: Apache-2.0
"""``tta-bench data`` and real data at ``run``, through the command line."""

import json
import socket
import subprocess
import sys
import urllib.error
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from tta_bench.cli.data import data_app
from tta_bench.engine.planning import plan
from tta_bench.engine.session import Session
from tta_bench.errors import BadInputError
from tta_bench.records.sink import Sink
from tta_bench.records.store import Store
from tta_bench.reports.progress import ConsoleReporter
from tta_bench.spec import Request


def pictures(root, classes=("cat", "dog"), count=3, size=(72, 64)):
    generator = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 256, (8, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(root / name / f"{number}.jpg")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def run_data(monkeypatch):
    """Return a function that runs the sub-application."""
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(data_app, [str(one) for one in arguments])


def test_help_answers_without_heavy_imports():
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom tta_bench.cli.data import data_app\n"
        "done = CliRunner().invoke(data_app, ['--help'])\nassert 'prepare' in done.output, done.output\n"
        "print([name for name in ('torch', 'numpy', 'rich.console') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in done.stdout
    assert "numpy" not in done.stdout


def test_list_says_what_is_here(run_data, data):
    pictures(data / "PACS" / "photo", ("dog", "person"))
    done = run_data("list")
    rows = {words[0]: words[1] for line in done.output.splitlines() if len(words := line.split()) > 1}
    assert (rows["pacs"], rows["imagenet-c"], rows["cifar10"]) == ("yes", "no", "no")
    assert "pocket" not in rows
    assert str(data) in done.output


def test_check_fails_with_what_is_missing(run_data, data):
    pictures(data / "PACS" / "photo", ("dog", "person"))
    done = run_data("check", "pacs")
    assert done.exit_code == 1
    assert "pacs:photo: 6 images of 1670, 2 classes, first image sha256" in done.output
    assert "5 class folders are missing (elephant, giraffe, guitar, ...)" in done.output
    assert "0 of 4 shifts are complete" in done.output


def test_prepare_tells_the_steps_and_the_tree(run_data, data):
    done = run_data("prepare", "imagenet")
    assert done.exit_code == 0
    assert "cannot be downloaded automatically" in done.output
    assert "29b22e2961454d5413ddabcf34fc5622" in done.output
    assert f"Expected below {data}" in done.output
    assert "tta-bench data check imagenet" in done.output


def test_prepare_can_only_say_what_it_would_fetch(run_data, data):
    done = run_data("prepare", "imagenet-c", "--part", "noise", "--dry-run")
    assert done.exit_code == 0
    assert (
        "https://zenodo.org/records/2235448/files/noise.tar  md5:e80562d7f6c3f8834afb1ecf27252745"
        in done.output
    )
    assert "blur.tar" not in done.output
    assert list(data.iterdir()) == []


def test_prepare_says_size_and_room_and_asks(run_data, data, monkeypatch):
    asked, got = [], []
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3 << 30))
    monkeypatch.setattr(
        "tta_bench.data.acquire.prepare.get", lambda downloads, *_, **__: got.append(len(downloads))
    )
    refused = run_data("prepare", "mnist")
    assert isinstance(refused.exception, BadInputError)
    assert "give --yes" in str(refused.exception)
    monkeypatch.setattr("tta_bench.cli.data._somebody_answers", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda question: bool(asked.append(question)))
    done = run_data("prepare", "mnist")
    assert f"4 files to download into {data} (11.1 MiB; 3.0 GiB are free there)" in done.output
    assert (asked, got) == (["Download them?"], [])
    assert run_data("prepare", "mnist", "--yes").exit_code == 0
    assert (len(asked), got) == (1, [4])


def test_what_is_there_is_not_asked_for_again(run_data, data, monkeypatch):
    got = []
    monkeypatch.setattr(
        "tta_bench.data.acquire.prepare.get", lambda downloads, *_, **__: got.append(len(downloads))
    )
    for split in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            path = data / "MNIST" / "raw" / f"{split}-{kind}-ubyte.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    done = run_data("prepare", "mnist")
    assert (done.exit_code, got) == (0, [4])
    assert "to download" not in done.output


def test_too_little_room_is_said_before_anything_is_fetched(run_data, data, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    done = run_data("prepare", "imagenet-a", "--yes")
    assert "GiB are needed in" in str(done.exception)
    assert "room for 1.0 MiB" in str(done.exception)
    assert list(data.iterdir()) == []


def test_a_host_that_is_not_found_is_one_sentence_at_once(run_data, data, monkeypatch):
    def offline(*_, **__):
        raise urllib.error.URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited"))
    done = run_data("prepare", "mnist", "--yes")
    assert "is not found ([Errno -2] Name or service not known); connect to the network" in str(
        done.exception
    )


def test_a_hub_that_does_not_answer_is_one_sentence_at_once(tta_bench, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pictures(tmp_path / "pictures")
    done = tta_bench(
        *("run", "--method", "source", "--dataset", tmp_path / "pictures", "--output", tmp_path / "runs"),
        *("--model", "timm/resnet18.a1_in1k"),
    )
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "could not be fetched (ConnectError" in line or "could not be fetched (Connection" in line
    assert "Retry" not in done.out + done.err


def test_nothing_there_is_one_line(run_data, data):
    done = run_data("check", "imagenet-c")
    assert done.exit_code == 1
    (line,) = done.output.splitlines()
    assert line.startswith("the files of imagenet-c are not at")
    pictures(data / "PACS" / "photo", ("dog",))
    done = run_data("check", "pacs")
    (line,) = [line for line in done.output.splitlines() if "not there" in line]
    assert line.startswith("pacs:art_painting, pacs:cartoon, pacs:sketch not there: ")


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_what_has_no_files_is_said(run_data, command):
    done = run_data(command, "pocket-c")
    assert isinstance(done.exception, BadInputError)
    assert "'pocket-c' has no files" in str(done.exception)


@pytest.mark.slow
def test_tent_runs_on_a_folder_of_pictures(tta_bench, tmp_path, data):
    pictures(tmp_path / "pictures")
    done = tta_bench(
        *("run", "--method", "tent", "--dataset", f"folder:{tmp_path / 'pictures'}:all:3"),
        *("--model", "timm/resnet18", "--no-pretrained", "--output", tmp_path / "runs", "--limit", 2),
        *("--batch-size", 2, "--no-memory"),
    )
    assert done.code == 0, done.err
    records = pd.concat(pd.read_parquet(path) for path in (tmp_path / "runs").rglob("records.parquet"))
    assert len(records) == 19 * 2
    assert set(records["image_id"]) == {"cat/0", "dog/0"}
    labels = dict(zip(records["image_id"], records["label"], strict=True))
    assert labels == {"cat/0": 0, "dog/0": 1}


def test_imagenet_c_without_data_gets_a_newcomer_going(tta_bench, tmp_path, data):
    done = tta_bench("run", "--method", "apm", "--dataset", "imagenet-c", "--output", tmp_path / "runs")
    assert done.code == 2
    sentence = done.err.strip()
    assert "\n" not in sentence
    assert str(data / "ImageNet-C") in sentence
    assert str(data / "imagenet") in sentence
    assert "tta-bench data prepare imagenet-c" in sentence


def spoiled(tmp_path):
    pictures(tmp_path / "pictures")
    (tmp_path / "pictures" / "dog" / "1.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    return (
        *("run", "--method", "source", "--dataset", f"folder:{tmp_path / 'pictures'}"),
        *("--model", "timm/resnet18", "--no-pretrained", "--output", tmp_path / "runs"),
        *("--batch-size", 2, "--no-memory"),
    )


def test_a_bad_image_stops_the_cell_and_is_named(tta_bench, tmp_path, data):
    done = tta_bench(*spoiled(tmp_path))
    assert done.code == 1
    manifest = json.loads(next((tmp_path / "runs").rglob("manifest.json")).read_text(encoding="utf-8"))
    assert manifest["status"] == "failed"
    assert "dog/1.jpg cannot be decoded" in manifest["error"]


def test_bad_images_are_skipped_and_recorded(tmp_path, data):
    spoiled(tmp_path)
    request = Request(
        methods=("source",), datasets=(f"folder:{tmp_path / 'pictures'}",), models=("timm/resnet18",),
        pretrained=False, batch_size=2, bad_image="skip",
    )  # fmt: skip
    cells = plan(request)
    store = Store(str(tmp_path / "runs")).open(create=True)
    with ConsoleReporter(Console(quiet=True), len(cells)) as reporter:
        ended = Session(Sink(store), reporter, probe_memory=False).run(cells)
    assert [one.status for one in ended] == ["complete"]
    manifest = json.loads(next((tmp_path / "runs").rglob("manifest.json")).read_text(encoding="utf-8"))
    assert manifest["notes"]["bad_images"] == ["dog/1"]
    records = pd.read_parquet(next((tmp_path / "runs").rglob("records.parquet")))
    assert len(records) == 5
    assert "dog/1" not in set(records["image_id"])


def test_skipped_images_are_named_at_the_end_of_every_run(tta_bench, tmp_path, data):
    arguments = spoiled(tmp_path)
    for _ in range(2):  # the second run reuses the cell
        done = tta_bench(*arguments, "--on-bad-image", "skip", "--no-memory")
        assert done.code == 0, done.err
        last = done.out.strip().splitlines()[-1]
        assert last.startswith("skipped 1 image of folder:")
        assert last.endswith("that cannot be decoded: dog/1")


def test_corrupt_writes_the_tree_and_goes_on(run_data, tmp_path):
    pictures(tmp_path / "pictures", count=2)
    arguments = ("corrupt", tmp_path / "pictures", tmp_path / "out", "--severity", "1,3", "--crop", "48")
    done = run_data(*arguments, "--corruption", "contrast")
    assert done.exit_code == 0, done.exception
    assert "4 images, 8 files" in done.output
    assert "8 of them new" in done.output
    with Image.open(tmp_path / "out" / "contrast" / "3" / "cat" / "0.png") as picture:
        assert picture.size == (48, 48)
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert "0 of them new" in run_data(*arguments, "--corruption", "contrast").output
    assert "16 files" in run_data(*arguments, "--corruption", "contrast", "--corruption", "brightness").output


def test_corrupt_refuses_what_it_cannot_do(run_data, tmp_path):
    pictures(tmp_path / "pictures", count=1)
    done = run_data("corrupt", tmp_path / "pictures", tmp_path / "out", "--corruption", "fogg")
    assert "did you mean 'fog'" in str(done.exception)
    done = run_data("corrupt", tmp_path / "nothing", tmp_path / "out")
    assert "must be a folder of images" in str(done.exception)


def test_corrupt_says_why_a_picture_was_left_out(run_data, tmp_path):
    pictures(tmp_path / "pictures", count=1)
    pictures(tmp_path / "pictures", ("emu",), 1, size=(20, 20))
    arguments = (
        "corrupt",
        tmp_path / "pictures",
        tmp_path / "out",
        "--corruption",
        "contrast",
        "--severity",
        1,
    )
    done = run_data(*arguments, "--on-bad-image", "skip")
    assert done.exit_code == 0, done.exception
    assert f"skipped: {tmp_path}/pictures/emu/0.jpg is 20x20, smaller than 32 pixels" in done.output
    assert "cannot be decoded" not in done.output


def test_input_that_cannot_be_used_ends_with_one_sentence(tta_bench, tmp_path, data):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    pictures(tmp_path / "pictures", count=1)
    (tmp_path / "pictures" / "cat" / "up").symlink_to("..")
    for arguments in (
        ("data", "prepare", "cifar10", "--root", tmp_path / "file"),
        ("data", "corrupt", tmp_path / "pictures", tmp_path / "out"),
        ("run", "--method", "source", "--dataset", f"folder:{tmp_path / 'pictures'}", "--model", "timm/resnet18",
         "--no-pretrained", "--output", tmp_path / "runs"),
        ("run", "--method", "source", "--dataset", "pocket-c:fog:²", "--output", tmp_path / "runs"),
    ):  # fmt: skip
        done = tta_bench(*arguments)
        assert done.code == 2, done
        assert len(done.err.strip().splitlines()) == 1


def test_a_root_named_by_a_dot_is_the_dataset(run_data, data, monkeypatch):
    pictures(data / "PACS" / "photo", ("dog", "person"))
    monkeypatch.chdir(data / "PACS")
    monkeypatch.setenv("TTA_BENCH_DATA", ".")
    assert "pacs:photo: 6 images of 1670, 2 classes" in run_data("check", "pacs").output
