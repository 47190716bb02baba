# SPDX-License-Identifier: Apache-2.0
"""The page "My model, my images" does what it says, command by command."""

import contextlib
import csv
import io
import re
import shlex
from pathlib import Path

import pytest
import torch

from tta_bench.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "my-model.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python)?\n(.*?)```", PAGE, re.DOTALL)


def commands(block):
    """Yield the commands of a block of a shell; text for a file comes with its name."""
    lines = iter(block.replace("\\\n", " ").splitlines())
    for line in lines:
        if found := re.fullmatch(r"cat > (\S+) <<END", line):
            text = []
            while (one := next(lines)) != "END":
                text.append(one)
            Path(found[1]).write_text("\n".join(text), encoding="utf-8")
        elif line.strip():
            yield shlex.split(line)


def run(words, monkeypatch):
    monkeypatch.setattr("sys.argv", words)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None), err.getvalue()
    return out.getvalue(), err.getvalue()


def accuracies(folder):
    with open(f"{folder}/leaderboard.csv", encoding="utf-8") as file:
        return {row["method"]: float(row["accuracy"]) for row in csv.DictReader(file)}


def test_every_command_of_the_page_runs_and_matches_the_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, scope, told = torch.get_rng_state(), {}, []
    for language, block in BLOCKS:
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block, "my-model.md", "exec"), scope)
            told.append((printed.getvalue(), ""))
        else:
            told += [run(words, monkeypatch) for words in commands(block)]
    torch.set_rng_state(before)
    assert not [err for _, err in told if "nothing says" in err]
    first, mapped = accuracies("runs/first"), accuracies("runs/map")
    assert set(first) == {"source", "norm", "tent"}
    assert mapped["source"] > 0.5
    assert accuracies("runs/table")["source"] > 0.5
    said = " ".join(out for out, _ in told)
    assert re.search(r"timm/test_efficientnet:\S+ on folder:photos:fog:5: ", said)
    assert "3 timed again" in said
    assert "mine on folder:photos:fog:5: " in said
