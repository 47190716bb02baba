# SPDX-License-Identifier: Apache-2.0
"""Plug-ins on the command line: told apart, hashed with all that is theirs, and refused or failed alone."""

import json
import sys
from pathlib import Path

import pytest

from tta_bench.hyperparameters import methods_in_file, source_hash

METHOD = """
from dataclasses import dataclass

from tta_bench.method import Adapted, Card, Method
{imports}

@dataclass(frozen=True)
class Mine(Method):
    {fields}
    {card}

    def adapt(self, source, state, inputs):
        return Adapted(state, source.logits(inputs.images))

{more}
"""
CARD = 'card = Card(paper="none", reset="image", independent=True)'


def text(*, imports="", fields="", card=CARD, more=""):
    return METHOD.format(imports=imports, fields=fields, card=card, more=more)


@pytest.fixture
def mine(tta_bench, tmp_path, monkeypatch):
    """Run the method ``mine`` of a plug-in file."""
    monkeypatch.chdir(tmp_path)

    def run(content, *arguments):
        Path("mine.py").write_text(content, encoding="utf-8")
        command = ("run", "--plugin", "mine.py", "--method", "mine", "--dataset", "pocket", "--limit", "8")
        return tta_bench(*command, *arguments)

    return run


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (text(fields="rate: float"), "TypeError: Mine.__init__() missing 1 required positional argument: 'rate'"),
        (text(more="    def __post_init__(self):\n        raise TypeError('odd')"), "TypeError: odd"),
        (text(more="    def __post_init__(self):\n        raise SystemExit"), "cannot be made"),
        (text(card=""), "must have a tta_bench.method.Card as `card`, got None"),
        (text(card=CARD.replace("image", "sometimes")), "image or batch or shift or never, got 'sometimes'"),
        (text().replace("(frozen=True)", ""), "method 'mine' must be a frozen dataclass"),
        ("class Own(Exception): ...\nraise Own('no\\nluck')", "mine.py cannot be imported: Own: no; fix"),
        ("raise SystemExit", "mine.py cannot be imported: SystemExit; fix"),
        (text(more="Tent = Mine").replace("class Mine(Method):", "class Mine(Method):\n    name = 'tent'"),
         "method 'tent' of mine.py is also one of package tta-bench; give it another `name`"),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_used_is_refused_in_one_sentence(mine, content, sentence):
    done = mine(content)
    assert done.code == 2, done.out
    assert sentence in done.err
    assert done.err.count("\n") == 1
    assert not Path("runs/cells").exists()


@pytest.mark.parametrize(
    "more",
    [
        "    def notes(self, source):\n        raise KeyError('rank')",
        "    def notes(self, source):\n        return {'rank': source.mean}",
        "    def adapted_tensors(self, source):\n        raise SystemExit(0)",
        "    def predict(self, source, state, inputs):\n        raise SystemExit(0)\n"
        "    def adapt(self, source, state, inputs):\n        return Adapted(state)",
    ],
)
def test_a_plugin_that_breaks_fails_alone(mine, more):
    done = mine(text(more=more), "--method", "source")
    assert done.code == 1, done.err
    manifests = [json.loads(path.read_text()) for path in Path("runs").glob("cells/*/manifest.json")]
    assert {one["cell"]["method"]: one["status"] for one in manifests} == {
        "mine": "failed",
        "source": "complete",
    }


def test_costs_that_cannot_be_counted_fail_alone(mine):
    broken = "    def costs(self, source, inputs):\n        raise RuntimeError('no\\\\ncosts')"
    done = mine(text(more=broken), "--method", "source", "--flops")
    assert done.code == 1
    assert "mine · pocket-bn: FLOPs are unavailable: RuntimeError: no" in done.out
    assert "source · pocket-bn: multiply-adds per image" in done.out


def test_files_of_one_stem_are_two_modules(tmp_path):
    hashes = []
    for folder, content in (("a", text()), ("b", text(more="# another")), ("c", text())):
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir()
        path.write_text(content, encoding="utf-8")
        hashes.append(methods_in_file(path)["mine"])
    first, other, moved = map(source_hash, hashes)
    assert first != other
    assert first == moved


def test_one_name_in_two_files_is_refused(mine, tmp_path):
    Path("other.py").write_text(text(), encoding="utf-8")
    done = mine(text(), "--plugin", "other.py")
    assert done.code == 2
    assert "method 'mine' of other.py is also one of mine.py" in done.err
    assert mine(text(), "--plugin", "mine.py").code == 0


@pytest.mark.parametrize(
    "imported",
    ["from acme.util import near", "import acme.util", "from ..util import near", "from .. import util"],
)
def test_the_hash_covers_what_a_package_imports_of_its_own(tmp_path, monkeypatch, imported):
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for version in ("near = 1", "near = 2"):
        for name, content in {
            "__init__": "",
            "util": "from acme import deep",
            "deep": version,
            "tta/__init__": "",
            "tta/mine": text(imports=imported),
        }.items():
            path = tmp_path / "acme" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + ("\nnear = 0" if name == "util" else ""), encoding="utf-8")
        __import__("acme.tta.mine")
        found.append(source_hash(sys.modules["acme.tta.mine"].Mine))
        for name in [name for name in sys.modules if name.partition(".")[0] == "acme"]:
            del sys.modules[name]
    assert found[0] != found[1]
