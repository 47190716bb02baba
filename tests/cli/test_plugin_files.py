# SPDX-License-Identifier: Apache-2.0
"""``--plugin FILE`` on every command that names methods; datasets and models of files."""

import json
from pathlib import Path

import pytest

from tta_bench import registry
from tta_bench.engine.objects import Objects
from tta_bench.engine.planning import plan
from tta_bench.spec import make_request

METHOD = '''
from dataclasses import dataclass

from tta_bench.method import Adapted, Card, Method


@dataclass(frozen=True)
class {name}(Method):
    """{doc}

    Attributes:
        rate: How fast.
    """

    rate: float = 0.5
    card = Card(paper="none", category="episodic", reset="image", independent=True, views=None)

    def adapt(self, source, state, inputs):
        return Adapted(state, source.logits(inputs.images))
'''
MODEL = '''
import torch
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.models.classifier import Classifier
from tta_bench.models.source import SourceModel


def load_tiny(request):
    """A linear network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, len(request.class_names)))
    return SourceModel(
        Classifier(net, len(request.class_names)),
        name=request.name,
        kind="classifier",
        class_names=request.class_names,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        preprocess=Preprocess((32, 32)),
    )


MODELS = {"tiny-own": load_tiny}
'''


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What files define is forgotten after each test."""
    monkeypatch.setattr(registry, "_of_files", {})


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(METHOD.format(name="Mine", doc="Do as the source does."), encoding="utf-8")
    return "mine.py"


def test_a_method_of_a_file_is_described_listed_and_validated(tta_bench, mine):
    for words in (("mine", "--plugin", mine), ("--plugin", mine)):
        shown = tta_bench("describe", *words)
        assert shown.code == 0, shown.err
        assert "Do as the source does." in shown.out
        assert "rate  0.5" in shown.out
    listed = tta_bench("list", "methods", "--plugin", mine, "--csv").out
    assert "mine,Do as the source does." in listed
    assert "mine," in tta_bench("list", "methods", "--plugin", mine, "--category", "episodic", "--csv").out
    assert "mine," not in tta_bench("list", "methods", "--plugin", mine, "--category", "online", "--csv").out
    for words in (("mine", "--plugin", mine), ("--plugin", mine), (mine,)):
        checked = tta_bench("validate", *words)
        assert "mine: " in checked.out, checked.err


def test_comparing_takes_the_version_that_the_file_holds_now(tta_bench, mine):
    run = ("run", "--plugin", mine, "--method", "source,mine", "--dataset", "pocket", "--limit", "8")
    assert tta_bench(*run).code == 0
    Path(mine).write_text(METHOD.format(name="Mine", doc="Say it in other words."), encoding="utf-8")
    assert tta_bench(*run).code == 0
    ambiguous = tta_bench("compare", "runs", "--methods", "source,mine")
    assert ambiguous.code == 2
    assert "mine stands for 2 variants, mine[code=" in ambiguous.err
    done = tta_bench("compare", "runs", "--plugin", mine, "--baseline", "source")
    assert done.code == 0, done.err
    assert "mine vs source" in done.out


def test_the_name_of_a_method_is_its_attribute_or_its_class_in_lower_case(tta_bench, mine):
    text = METHOD.format(name="OtherOne", doc="Another.")
    Path("two.py").write_text(text, encoding="utf-8")
    assert (
        "unknown method or dataset 'other-one'; did you mean 'otherone'"
        in tta_bench("describe", "other-one", "--plugin", "two.py").err
    )
    Path("three.py").write_text(
        text.replace("    rate: float", '    name = "other-one"\n    rate: float', 1), encoding="utf-8"
    )
    assert tta_bench("describe", "other-one", "--plugin", "three.py").code == 0
    guide = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "the attribute `name`, or without one the class name in lower case" in " ".join(guide.split())


def test_a_file_may_define_a_model(tta_bench, mine):
    Path("own.py").write_text(MODEL, encoding="utf-8")
    done = tta_bench("run", "--plugin", "own.py", "--model", "tiny-own", "--method", "source", "--dataset", "pocket",
                     "--limit", "6")  # fmt: skip
    assert done.code == 0, done.err
    manifest = json.loads(next(Path("runs").glob("cells/*/manifest.json")).read_text())
    assert manifest["cell"]["model"] == "tiny-own"
    assert manifest["cell"]["plugin_code"].keys() == {"model"}
    assert manifest["cell"]["files"][0]["path"].endswith("own.py")
    assert "A linear network" in tta_bench("list", "models", "--plugin", "own.py").out


def test_a_file_may_define_a_dataset_and_other_processes_find_it(tta_bench, mine, monkeypatch):
    Path("data.py").write_text(
        "from dataclasses import replace\n\nfrom tta_bench.data.dataset import Shift, find_dataset\n\n"
        'BASE = find_dataset("pocket")[0]\n\n\ndef scenes(opening):\n'
        '    return BASE.open(opening._replace(shift=Shift("pocket")))\n\n\n'
        'own = replace(BASE, name="my-scenes", title="Scenes of mine", open=scenes)\n',
        encoding="utf-8",
    )
    words = ("--method", "source", "--dataset", "my-scenes", "--limit", "6")
    done = tta_bench("run", "--plugin", "data.py", *words)
    assert done.code == 0, done.err
    assert "Scenes of mine" in tta_bench("describe", "my-scenes", "--plugin", "data.py").out
    assert "my-scenes" in tta_bench("list", "datasets", "--plugin", "data.py").out
    (cell,) = plan(make_request({"methods": "source", "datasets": "my-scenes", "plugins": "data.py"}))
    monkeypatch.setattr(registry, "_of_files", {})
    assert Objects().dataset(cell).title == "Scenes of mine"
    monkeypatch.setattr(registry, "_of_files", {})
    assert "unknown dataset 'my-scenes'" in tta_bench("run", *words).err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("MODELS = 3", "MODELS of own.py must map names to functions that load a model, got int"),
        ("MODELS = {'pocket-bn': len}", "model 'pocket-bn' of"),
        ("x = 1", "own.py defines no method, dataset or model"),
    ],
)
def test_a_file_that_defines_nothing_usable_is_refused(tta_bench, mine, content, sentence):
    Path("own.py").write_text(content, encoding="utf-8")
    done = tta_bench("run", "--plugin", "own.py", "--method", "source", "--dataset", "pocket")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert sentence in done.err
