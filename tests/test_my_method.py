# SPDX-License-Identifier: Apache-2.0
"""The guide from a method to a table runs as it stands, and the imperative example is TENT."""

import dataclasses
import re
import shlex
from pathlib import Path

import torch

from tta_bench.checks import check_method
from tta_bench.hyperparameters import create_method, methods_in_file
from tta_bench.testing import tiny_inputs, tiny_source, tiny_task

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "my-method.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_guide_leads_to_a_table(tta_bench, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (method,) = re.findall(r"<!-- file: mine.py -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    Path("mine.py").write_text(method, encoding="utf-8")
    commands = re.findall(r"^tta-bench (.*)$", GUIDE, re.MULTILINE)
    assert len(commands) == 9
    said = {}
    for command in commands:
        done = tta_bench(*shlex.split(command))
        assert done.code == 0, (command, done.out, done.err)
        said[command.split()[0]] = done.out
    assert "method - baseline" in said["compare"]
    assert "| mine (keep=0.5, lr=0.001) |" in Path("table.md").read_text(encoding="utf-8")
    assert Path("shifts.csv").is_file()
    (snippet,) = re.findall(r"```python\n(import tta_bench.*?)```", GUIDE, re.DOTALL)
    exec(snippet, {})


def imperative(tmp_path, without=""):
    (block,) = re.findall(r"<!-- imperative: begin -->\n```python\n(.*?)```", CONTRIBUTING, re.DOTALL)
    path = tmp_path / "tentmodule.py"
    path.write_text(re.sub(without, "", block) if without else block, encoding="utf-8")
    ((name, cls),) = methods_in_file(path).items()
    assert name == "tent-module"
    return cls()


def test_the_imperative_example_keeps_its_promises_and_is_tent(tmp_path):
    method = imperative(tmp_path)
    assert not [result for result in check_method(method) if result.bad]
    tent = create_method("tent", {"optimizer": "sgd", **dataclasses.asdict(method)})
    source = tiny_source("batch", dtype=torch.float64)
    states = [one.init(source, tiny_task(source, one)) for one in (method, tent)]
    for seed in range(4):
        inputs = tiny_inputs(source, 6, method=method, seed=seed)
        pair = [one.adapt(source, state, inputs) for one, state in zip((method, tent), states, strict=True)]
        torch.testing.assert_close(pair[0].logits, pair[1].logits)
        states = [one.state for one in pair]


def test_a_card_that_forgets_the_optimiser_is_told_what_to_say(tmp_path):
    method = imperative(tmp_path, without=r" *fixed_shapes=False.*\n *grows=.*\n")
    (failed,) = [result for result in check_method(method) if result.bad]
    assert failed.name == "state_keeps_its_shape"
    assert 'put fixed_shapes=False, grows=("optimizer",) into the Card' in failed.reason
