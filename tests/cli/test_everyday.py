# SPDX-License-Identifier: Apache-2.0
"""What makes a command line pleasant: examples, wildcards, groups, completion, listings, and quick refusals."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tta_bench import registry
from tta_bench.cli import app
from tta_bench.cli.examples import EXAMPLES
from tta_bench.names import GROUPS

DRY = ("run", "--limit", "2", "--dry-run")


def commands():
    """Every command by its words."""
    root = typer.main.get_command(app)
    for name, one in root.commands.items():
        for inner, command in getattr(one, "commands", {"": one}).items():
            yield f"{name} {inner}".strip(), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_that_it_takes(tta_bench, name):
    assert len(EXAMPLES[name]) >= 2
    shown = tta_bench(*name.split(), "--help").out
    for example in EXAMPLES[name]:
        assert f"  {example}\n" in shown, "an example keeps its line"
        words = shlex.split(example)
        words = words[words.index("tta-bench") + 1 + len(name.split()) :]
        COMMANDS[name].make_context(name, words)


def test_exit_codes_are_documented(tta_bench):
    told = " ".join(tta_bench("--help").out.split())
    assert "Exit codes: 0 all is well; 1 the command ran and something failed" in told
    text = (Path(__file__).parents[2] / "docs" / "running.md").read_text(encoding="utf-8")
    for code in ("| 0 |", "| 1 |", "| 2 |", "| 130 |"):
        assert code in text


def planned(tta_bench, *words):
    done = tta_bench(*DRY, *words)
    assert done.code == 0, done.err
    return [line.split(" · ") for line in done.out.splitlines() if " · " in line]


@pytest.mark.filterwarnings("ignore:promptalign is left out:tta_bench.errors.Caution")
def test_names_wildcards_and_groups(tta_bench):
    def methods(*tokens):
        words = [word for token in tokens for word in ("--method", token)]
        return list(
            dict.fromkeys(
                cell[0].partition("[")[0] for cell in planned(tta_bench, *words, "--dataset", "pocket")
            )
        )

    assert methods("rpl,tent") == methods("rpl", "tent") == ["rpl", "tent"]
    assert methods("come-*") == ["come-eata", "come-sar", "come-tent"]
    assert methods("come-*,-come-sar", "tent") == ["come-eata", "come-tent", "tent"]
    for group in GROUPS:
        cards = {name: registry.load("methods", name).card for name in methods(f"@{group}")}
        assert cards
        assert all(group in card.groups for card in cards.values())
    clip = set(methods("@online+clip"))
    assert clip == set(methods("@online")) & set(methods("@clip"))
    assert set(methods("@online,-@clip")) == set(methods("@online")) - clip
    assert all(
        "gradients" not in registry.load("methods", name).card.needs for name in methods("@forward-only")
    )


@pytest.mark.filterwarnings("always::tta_bench.errors.Caution")
def test_a_method_that_needs_more_is_left_out_of_its_group_with_a_word(tta_bench):
    done = tta_bench(*DRY, "--method", "@episodic", "--dataset", "pocket")
    assert done.code == 0, done.err
    assert "note: promptalign is left out of @episodic: PromptAlign needs prompts" in done.err
    assert "promptalign" not in done.out


def test_datasets_corruptions_and_severities_take_wildcards(tta_bench):
    def shifts(*tokens, more=()):
        words = [word for token in tokens for word in ("--dataset", token)]
        return [cell[2] for cell in planned(tta_bench, "--method", "source", *words, *more)]

    whole = {one.partition(":")[0] for one in shifts("pocket-*")}
    assert whole == {name for name in registry.registered("datasets") if name.startswith("pocket-")}
    assert shifts("pocket-sketch,pocket-v2") == ["pocket-sketch", "pocket-v2"]
    assert len(shifts("pocket-c:*:5")) == 15
    assert shifts("pocket-c:*:3") == [one.replace(":5", ":3") for one in shifts("pocket-c")]
    assert shifts("pocket-c:fog:*") == [f"pocket-c:fog:{severity}" for severity in range(1, 6)]
    assert shifts("pocket-c:fog:1-2") == shifts("pocket-c:fog:1,2") == ["pocket-c:fog:1", "pocket-c:fog:2"]
    assert shifts("pocket-c", more=("--corruption", "*_blur")) == shifts("pocket-c:*_blur")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--method", "tnt", "--dataset", "pocket"), "unknown method 'tnt'; did you mean 'tent'"),
        (("--method", "come_*", "--dataset", "pocket"), "unknown method 'come_*'"),
        (
            ("--method", "@onlin", "--dataset", "pocket"),
            "unknown group of methods '@onlin'; did you mean '@online'",
        ),
        (("--method", "tent,-tent", "--dataset", "pocket"), "--method must name at least one method"),
        (("--method", "tent", "--dataset", "poket"), "unknown dataset 'poket'; did you mean 'pocket'"),
        (("--method", "tent", "--dataset", "poket-*"), "unknown dataset 'poket-*'"),
        (("--method", "tent", "--dataset", "pocket-c:fg*"), "unknown corruption 'fg*'"),
        (
            ("--method", "tent", "--dataset", "pocket", "--model", "pocet-bn"),
            "unknown model 'pocet-bn'; did you mean",
        ),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(tta_bench, words, sentence):
    done = tta_bench("run", *words)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert sentence in done.err


QUICK = """
import sys, time
from tta_bench.cli import main
for words in {commands!r}:
    sys.argv = ["tta-bench", *words]
    begun = time.perf_counter()
    try:
        main()
    except SystemExit as stopped:
        print(stopped.code, [name for name in ("torch", "pandas") if name in sys.modules], " ".join(words))
"""


def test_a_mistyped_name_is_answered_before_torch_is_imported(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("method: tnt\ndataset: pocket\n")
    commands = [
        ["run", "--method", "tnt", "--dataset", "pocket"],
        ["run", "--method", "tent", "--dataset", "poket"],
        ["run", "--method", "tent", "--dataset", "pocket", "--model", "pokket-bn"],
        ["run", "--method", "tent", "--dataset", "pocket", "--device", "gpu"],
        ["run", "--suite", "poket-online"],
        ["sweep", "--method", "tnt", "--dataset", "pocket", "--set", "lr=1,2"],
        ["run", "--config", str(config)],
        ["describe", "tnt"],
        ["validate", "tnt"],
        ["data", "check", "poket"],
        ["data", "prepare", "poket"],
        ["study", "amp"],
        ["islands", "--dataset", "poket"],
        ["islands", "--dataset", "pocket", "--model", "pokket-clip"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", QUICK.format(commands=commands)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [f"2 [] {' '.join(words)}" for words in commands], done.stderr


def test_a_shell_completes_names():
    script = "import sys; sys.argv = ['tta-bench']; from tta_bench.cli import main; main()"
    for words, expected in {
        "tta-bench run --method ten": "tent",
        "tta-bench run --method source,eat": "source,eata",
        "tta-bench describe pocket-sk": "pocket-sketch",
    }.items():
        count = str(len(words.split()) - 1)
        environment = {"_TTA_BENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": count}
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in done.stdout.splitlines(), done.stderr


def test_runs_and_cells_are_listed_with_their_names(tta_bench, cell, tmp_path, monkeypatch):
    cell("a", cell={"variant": "lr=0.1"})
    cell("b", folder="deep/two", cell={"method": "mine", "seed": 1})
    monkeypatch.chdir(tmp_path)
    listed = tta_bench("list", "runs").out.splitlines()
    assert [line.split()[0] for line in listed] == ["run", "deep/two", "runs"]
    assert "1 of 1" in listed[1]
    assert "mine" in listed[1]
    rows = tta_bench("list", "cells", "runs", "deep/two").out.splitlines()
    assert rows[0].split() == ["id", "method", "model", "shift", "seed", "status", "images", "run"]
    assert rows[1].split()[:6] == ["b", "mine", "pocket-bn", "imagenet-c:fog:5", "1", "complete"]
    assert rows[2].split()[:2] == ["a", "tent[lr=0.1]"]
    assert "mine" not in tta_bench("list", "cells", "runs", "deep/two", "--where", "method=tent").out
    assert (
        tta_bench("list", "cells", "runs", "--csv").out.splitlines()[0]
        == "id,method,model,shift,seed,status,images,run"
    )
    Path("empty").mkdir()
    assert "there is no run folder in empty" in tta_bench("list", "runs", "empty").err
    assert tta_bench("list", "methods", "runs").code == 2


def test_planned_cells_are_listed_too(tta_bench, cell, make, tmp_path):
    from tta_bench.records.store import Store

    folder = cell("a")
    Store(folder).put_plan([make.manifest("x", cell={"method": "mine"}).cell])
    done = tta_bench("list", "cells", folder, "--where", "status=planned")
    assert done.out.splitlines()[1].split() == ["mine", "pocket-bn", "imagenet-c:fog:5", "0", "planned"]
    assert json.dumps(done.out).count("planned") == 1


def test_lists_of_methods_are_filtered_by_what_cards_declare(tta_bench):
    def names(*words):
        return [
            line.split(",")[0] for line in tta_bench("list", "methods", "--csv", *words).out.splitlines()[1:]
        ]

    cards = {name: registry.load("methods", name).card for name in registry.registered("methods")}
    assert names("--needs", "views") == [name for name, card in cards.items() if card.views]
    assert names("--no-gradients") == [name for name, card in cards.items() if "gradients" not in card.needs]
    for category in ("episodic", "online", "transductive"):
        assert names("--category", category) == [n for n, card in cards.items() if card.category == category]
