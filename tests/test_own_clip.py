# SPDX-License-Identifier: Apache-2.0
"""Whoever follows docs/clip.md with a checkpoint and a folder of images gets what it says, here on random weights."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

import tta_bench as tb
from tta_bench import registry
from tta_bench.cli import main
from tta_bench.hyperparameters import method_class
from tta_bench.suites import load_suite

PAGE = Path(__file__).parents[1] / "docs" / "clip.md"
COMMANDS = [
    line
    for block in re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
]
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def clip_methods():
    names = registry.registered("methods")
    return {name for name in names if "text" in method_class(name).card.needs}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A checkpoint and a folder of images, in the folder that commands run in."""
    config = tmp_path / "configs" / "tiny-own-vit.json"
    config.parent.mkdir()
    config.write_text(json.dumps(TINY), encoding="utf-8")
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("tiny-own-vit").state_dict(), tmp_path / "clip.pt")
    numbers = np.random.default_rng(0)
    for name in ("tabby cat", "teapot", "harp"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(2):
            pixels = numbers.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(command, monkeypatch):
    """Run a command of the page on the tiny architecture; return its exit code."""
    monkeypatch.setattr("sys.argv", shlex.split(command.replace("ViT-B-32", "tiny-own-vit")))
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code or 0


def test_the_suite_has_every_clip_method_but_the_one_that_needs_trained_prompts():
    assert set(load_suite("pocket-vlm").options["methods"]) == clip_methods() - {"promptalign", "apm"}


def test_the_short_commands_of_the_page(own, monkeypatch, capsys):
    one, _, promptalign, *rest = COMMANDS
    assert follow(one, monkeypatch) == 0
    assert "vs same prompts" in " ".join(capsys.readouterr().out.split())
    assert follow(promptalign, monkeypatch) == 2
    assert "maple.safetensors" in capsys.readouterr().err
    assert follow(promptalign.replace("--set weights=maple.safetensors ", ""), monkeypatch) == 2
    assert "weights=FILE, with ctx" in capsys.readouterr().err
    for command in rest:
        assert follow(command, monkeypatch) == 0, capsys.readouterr().err
    rows = tb.load(str(own / "runs" / "own")).rows(allow_mixed=True)
    assert sum(row.hyperparameters_chosen == "tuned-on-test" for row in rows) == 6
    assert all(row.cached for row in rows if row.looks)


@pytest.mark.slow
def test_all_methods_run_on_an_own_checkpoint_and_folder(own, monkeypatch):
    (command,) = (line for line in COMMANDS if "--suite" in line)
    assert follow(command, monkeypatch) == 0
    rows = tb.load(str(own / "runs" / "own")).rows(allow_mixed=True)
    assert {row.method for row in rows} == set(load_suite("pocket-vlm").options["methods"])
    assert {row.status for row in rows} == {"complete"}
    assert {row.dataset for row in rows} == {"folder:photos"}
    assert not any(row.variant.startswith("reward=pocket") for row in rows)
