# SPDX-License-Identifier: Apache-2.0
"""The Python interface computes what the command line does, from names and from objects."""

import doctest
import inspect
import io
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from tta_bench.adapters.tent import Tent

import tta_bench as tb
from tta_bench import api
from tta_bench.errors import (
    BadInputError,
    Caution,
    IncompatibleError,
    PluginError,
    StoreError,
    UnknownNameError,
)
from tta_bench.method import Adapted, Card, Method
from tta_bench.models import own
from tta_bench.models.loading import load_model
from tta_bench.pocket.datasets import POCKET
from tta_bench.records.frame import read_frame
from tta_bench.reports.results import Results
from tta_bench.spec import Request
from tta_bench.spec.options import options_of

EXACT = ["method", "model", "dataset", "cell", "image_id", "shift", "position", "label", "prediction", "confidence",
         "entropy", "source_prediction", "source_confidence", "reset", "seed"]  # fmt: skip
SMALL = {"limit": 12, "batch_size": 5, "memory": False}


@dataclass(frozen=True)
class Sharper(Method):
    """Predict with logits that are scaled."""

    factor: float = 2.0
    card: ClassVar[Card] = Card(paper="none", reset="image", independent=True)

    def adapt(self, source, state, inputs):
        return Adapted(state, self.factor * source.logits(inputs.images))


class OwnNet(nn.Module):
    """The network of pocket-bn, as somebody would write it."""

    def __init__(self):
        super().__init__()
        self.body = load_model("pocket-bn", POCKET.class_names).module()

    def forward(self, x):
        return self.body(x)


class OwnData(torch.utils.data.Dataset):
    """The first images of PocketScenes."""

    classes = POCKET.class_names

    def __init__(self, count=12):
        self.images = POCKET.open(tb_request())
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, position):
        image = self.images.load([position], load_model("pocket-bn", POCKET.class_names).preprocess)[0]
        return image, int(self.images.labels[position])


def tb_request():
    from tta_bench.data.dataset import OpenRequest, Shift

    return OpenRequest(Shift("pocket"))


def command_line(monkeypatch, *arguments):
    from tta_bench.cli import main

    monkeypatch.setattr("sys.argv", ["tta-bench", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code


def equal(left, right, columns=EXACT):
    order = ["cell", "position"]
    pd.testing.assert_frame_equal(
        left.sort_values(order)[columns].reset_index(drop=True),
        right.sort_values(order)[columns].reset_index(drop=True),
    )


def test_names_give_the_cells_and_the_frame_of_the_command_line(tmp_path, monkeypatch):
    results = tb.evaluate(["source", Tent(lr=0.002)], "pocket-c:fog", output=tmp_path / "here", **SMALL)
    command_line(
        monkeypatch, "run", "--method", "source", "--method", "tent", "--set", "tent.lr=0.002", "--dataset",
        "pocket-c:fog", "--limit", 12, "--batch-size", 5, "--no-memory", "--output", tmp_path / "there",
    )  # fmt: skip
    assert len(results) == 2
    equal(results.frame(), read_frame(str(tmp_path / "there")))
    equal(tb.load(tmp_path / "here").frame(), results.frame())
    assert (tmp_path / "here" / "leaderboard.csv").stat().st_size > 0
    again = tb.evaluate(["source", Tent(lr=0.002)], "pocket-c:fog", output=tmp_path / "here", **SMALL)
    assert again == results


def test_objects_give_what_the_command_line_gives_for_their_names(tmp_path, monkeypatch):
    plugin = tmp_path / "sharper.py"
    header = (
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from tta_bench.method import Adapted, Card, Method\n"
    )
    plugin.write_text(header + textwrap.dedent(inspect.getsource(Sharper)), encoding="utf-8")
    command_line(
        monkeypatch, "run", "--plugin", plugin, "--method", "sharper", "--set", "factor=3", "--dataset", "pocket",
        "--model", "pocket-bn", "--limit", 12, "--no-memory", "--output", tmp_path / "there",
    )  # fmt: skip
    size = load_model("pocket-bn", POCKET.class_names).preprocess.size
    net = OwnNet().train().requires_grad_(True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    results = tb.evaluate(
        Sharper(factor=3.0), OwnData(), models=tb.model(net, POCKET.class_names, size=size), memory=False,
        output=tmp_path / "here",
    )  # fmt: skip
    assert not results.failed()
    own, named = results.frame(), read_frame(str(tmp_path / "there"))
    own["place"], named["place"] = (frame["image_id"].str[-5:].astype(int) for frame in (own, named))
    columns = ["label", "prediction", "source_prediction", "correct", "variant", "method"]
    left, right = (frame.sort_values("place").reset_index(drop=True) for frame in (own, named))
    pd.testing.assert_frame_equal(left[columns], right[columns])
    np.testing.assert_allclose(left["confidence"], right["confidence"], rtol=1e-4)
    (manifest,) = results.manifests()
    assert set(manifest.cell.in_process) == {"method", "model", "dataset"}
    assert (manifest.cell.model, manifest.cell.dataset) == ("ownnet", "owndata")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_content_decides_which_cell_it_is(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    pixels = torch.rand(6, 3, 8, 8)
    data = [(image, index % 2) for index, image in enumerate(pixels)]

    def ids(net=net, data=data, **facts):
        own = tb.dataset(data, ("ant", "bee"), name="mine")
        results = tb.evaluate(
            "source", own, models=tb.model(net, size=8, **facts), output=tmp_path, memory=False
        )
        assert not results.failed()
        return results.ids

    first = ids()
    assert ids() == first
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    changed = [(image, 0) for image, _ in data]
    assert len({first, ids(net=other), ids(data=changed), ids(mean=0.5)}) == 4
    assert len(tb.load(tmp_path)) == 4


def test_weights_in_two_places_are_one_model(tmp_path):
    import timm

    torch.manual_seed(0)
    weights = timm.create_model("test_vit", num_classes=2).state_dict()
    places = [tmp_path / "a" / "one.pth", tmp_path / "b" / "two.pth"]
    for place, scale in (*zip(places, (1, 1), strict=True), (tmp_path / "other.pth", 2)):
        place.parent.mkdir(exist_ok=True)
        torch.save({name: scale * value for name, value in weights.items()}, place)
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40), (100 * label, 50 * number, 90)).save(
                tmp_path / "images" / name / f"{number}.png"
            )
    output, data = str(tmp_path / "runs"), f"folder:{tmp_path / 'images'}"

    def run(method, *files):
        models = [f"timm/test_vit:{file}" for file in files]
        with pytest.warns(Caution, match="in this order"):  # a state dict does not name its outputs
            return tb.evaluate(method, data, models=models, output=output, memory=False)

    first, again = run("source", places[0]), run("source", places[1])
    assert first.ids == again.ids
    adapted, other = run("lame", places[1]), run("source", tmp_path / "other.pth")
    rows = Results((output,)).rows()
    name = first.manifests()[0].protocol.weights[:8]
    assert [(row.method, row.model, row.weights_file) for row in rows if row.model.endswith(name)] == [
        ("source", f"timm/test_vit:{name}", str(places[0])),
        ("lame", f"timm/test_vit:{name}", str(places[1])),
    ]
    assert len(rows) == 3
    assert len({*first.ids, *adapted.ids, *other.ids}) == 3


def test_a_network_without_statistics_is_a_caution_at_the_end_and_in_the_manifest(tmp_path):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(1)
    )
    model = tb.model(nn.Sequential(net, nn.Flatten(), nn.Linear(4, 16)), size=16)
    with pytest.warns(Caution, match="store no statistics"):
        results = tb.evaluate("source", "pocket", models=model, output=str(tmp_path), **SMALL)
    ((caution,),) = [one.notes.cautions for one in results.manifests()]
    assert "depend on the batch size" in caution


def test_images_of_every_kind_are_the_same_images():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    tensors = [torch.from_numpy(one).permute(2, 0, 1) for one in pixels]
    kinds = (
        list(pixels),
        [Image.fromarray(one) for one in pixels],
        tensors,
        [one.float() / 255 for one in tensors],
    )
    made = [tb.dataset([(one, 1) for one in kind], ("a", "b")) for kind in kinds]
    made.append(tb.dataset(((one, torch.tensor(1)) for one in pixels), ("a", "b")))
    assert len({one.content for one in made}) == 1


@pytest.mark.parametrize(
    ("data", "names", "sentence"),
    [
        ([(np.zeros((8, 8, 3), np.uint8), 2)], ("a", "b"), "labels must be 0 to 1 for 2 class names, got 2"),
        ([(np.zeros((8, 8, 3), np.uint8), 0.5)], ("a", "b"), "labels must be whole numbers, got 0.5"),
        ([(torch.full((3, 8, 8), -1.0), 0)], ("a", "b"), r"float images must be in \[0, 1\], got -1"),
        ([(torch.zeros(8, 8), 0)], ("a", "b"), r"got Tensor of shape \(8, 8\) at 0"),
        ([3], ("a", "b"), "must give .image, label. pairs.*got int at 0"),
        ([(torch.zeros(3, 8, 8), 0)], (), "the class names of list are not known"),
    ],
)
def test_data_that_are_no_images_and_labels_are_refused(data, names, sentence):
    with pytest.raises(BadInputError, match=sentence):
        tb.dataset(data, names)


@pytest.mark.parametrize(
    ("asked", "error", "sentence"),
    [
        ({"methods": "tnet"}, UnknownNameError, "unknown method 'tnet'; did you mean 'tent'"),
        ({"methods": Tent}, BadInputError, "got Tent, the class itself"),
        ({"methods": ()}, BadInputError, "methods must name at least one"),
        ({"models": nn.Linear(2, 2)}, BadInputError, r"tta_bench.model\(net, ...\), got Linear"),
        ({"limit": "12"}, BadInputError, "limit must be a whole number, got '12'"),
        ({"limits": 3}, UnknownNameError, "unknown option 'limits'; did you mean 'limit'"),
        ({"severities": 9}, BadInputError, "severities must be 1 to 5, got 9"),
        ({"methods": "norm", "models": "pocket-gn"}, IncompatibleError, "BatchNorm"),
        ({"output": __file__}, StoreError, "is a file"),
    ],
)
def test_errors_are_those_of_the_command_line_without_its_flags(asked, error, sentence, tmp_path):
    values = {"methods": "tent", "datasets": "pocket", "output": tmp_path / "runs"} | asked
    with pytest.raises(error, match=sentence) as caught:
        tb.evaluate(**values)
    assert "--" not in str(caught.value)


def test_a_network_of_other_classes_is_refused(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))
    data = tb.dataset([(torch.zeros(3, 8, 8), 0)], ("ant", "bee"))
    for model, sentence in (
        (tb.model(net, size=8), "3 outputs but the dataset has 2 classes"),
        (tb.model(net, ("cat", "ant", "dog"), size=8), "has no class 'bee'"),
    ):
        with pytest.raises(IncompatibleError, match=sentence):
            tb.evaluate("source", data, models=model, output=tmp_path)
    named = tb.model(net, ("bee", "cat", "ant"), size=8)
    results = tb.evaluate("source", data, models=named, output=tmp_path, memory=False)
    with torch.no_grad():
        expected = net(torch.zeros(1, 3, 8, 8))[0, [2, 0]].argmax()
    assert results.frame(["prediction"])["prediction"].tolist() == [int(expected)]


def test_a_method_under_the_name_of_another_is_refused(tmp_path):
    impostor = dataclass(frozen=True)(type("Tent", (Sharper,), {"card": Sharper.card}))
    with pytest.raises(PluginError, match="method 'tent' of this process is also one of package tta-bench"):
        tb.evaluate(impostor(), "pocket", output=tmp_path)


def test_code_at_a_prompt_is_told_apart():
    from tta_bench.spec.code import code_hash

    def made(expression):
        space = {"__name__": "nowhere"}
        exec(f"class Mine:\n    def step(self, x):\n        return {expression}", space)
        return code_hash(space["Mine"])

    assert made("x + 1") == made("x + 1")
    assert len({made("x + 1"), made("x + 2"), made("x - 1"), made("[y for y in x]")}) == 4


def test_a_folder_stands_for_its_shifts():
    assert tb.folder("photos") == ["folder:photos"]
    assert tb.folder(Path("photos"), corruption="fog", severity=3) == ["folder:photos:fog:3"]
    assert tb.folder("photos", ("fog", "snow")) == ["folder:photos:fog", "folder:photos:snow"]


def test_results_are_saved_loaded_and_shown(tmp_path):
    results = tb.evaluate("source", ["pocket", "pocket-sketch"], output=tmp_path / "runs", **SMALL)
    some = tb.Results((str(tmp_path / "runs"),), results.ids[:1])
    saved = some.save(str(tmp_path / "saved"))
    assert (len(results), len(some), len(saved)) == (2, 1, 1)
    equal(saved.frame(), some.frame())
    assert saved.rows() == some.rows()
    assert list(results.summary()["dataset"]) == ["pocket", "pocket-sketch"]
    assert repr(saved) == f"<Results: 1 cell in {tmp_path / 'saved'}>"
    assert "accuracy" in str(results)
    assert results._repr_html_().count("<tr") == 3
    assert "demonstration" in results._repr_html_()
    console = Console(width=100, file=io.StringIO())
    console.print(results)
    assert "pocket-sketch" in console.file.getvalue()
    with pytest.raises(StoreError, match="there is no run folder"):
        tb.load(str(tmp_path / "nowhere"))


def test_a_cell_that_fails_is_named_with_its_error(tmp_path):
    broken = dataclass(frozen=True)(
        type("Broken", (Sharper,), {"adapt": lambda self, *rest: 1 / 0, "card": Sharper.card})
    )
    results = tb.evaluate([broken(), "source"], "pocket", output=tmp_path, **SMALL)
    assert results.failed() == {"broken · pocket-bn · pocket": "ZeroDivisionError: division by zero"}
    assert [row.method for row in results] == ["source", "broken"]


def test_the_signature_names_every_option_and_importing_is_quick():
    names = set(inspect.signature(tb.evaluate).parameters)
    assert set(options_of(Request)) <= names
    assert {"output", "resume", "force", "memory", "suite"} <= names
    code = "import sys, tta_bench; tta_bench.__version__; print('torch' in sys.modules, 'evaluate' in dir(tta_bench))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'evalute'"):
        tb.evalute  # noqa: B018


def test_the_examples_of_the_interface_run(tmp_path):
    found = doctest.testmod(api, extraglobs={"runs": str(tmp_path)}, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 6
    assert not found.failed


def test_code_of_libraries_is_told_by_their_versions_and_own_code_by_its_hash(monkeypatch):
    hashed = []
    monkeypatch.setattr(own, "code_hash", lambda kind: hashed.append(kind) or "hash")
    tb.model(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)))
    assert hashed == []
    tb.model(OwnNet())
    assert OwnNet in hashed
    assert not [kind for kind in hashed if kind.__module__.startswith(("torch", "timm"))]
