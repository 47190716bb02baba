# SPDX-License-Identifier: Apache-2.0
"""Devices: which one a name stands for, what is said of one that is not there, and a cell on each kind of double."""

import pytest
import torch
from tta_bench.adapters.memo import Memo
from tta_bench.adapters.tent import Tent

from tta_bench.data.images import prefetch
from tta_bench.engine import objects
from tta_bench.engine.devices import chosen, resolve_device
from tta_bench.engine.live import Live
from tta_bench.engine.machine import describe_machine
from tta_bench.engine.planning import plan
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import ModuleMethod
from tta_bench.spec import Request
from tta_bench.testing import device_double, tiny_source

from . import fakes
from .fakes import cell, run


def asked(device, **options):
    return plan(Request(methods=("source",), datasets=("pocket",), device=device, **options), Live())


@pytest.mark.parametrize("name", ["cuda", "cuda:1", "mps", "xpu", "xpu:2"])
def test_a_device_that_is_not_there_is_refused_in_a_sentence(name):
    if {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}[
        name.partition(":")[0]
    ].is_available():
        pytest.skip("it is there")
    with pytest.raises(
        BadInputError, match=rf"device {name} needs .* device, and torch finds none here; use device cpu"
    ):
        asked(name)


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "mps:0", "tpu", "cpu:1"])
def test_a_name_that_is_none_is_refused_with_all_there_are(name):
    with pytest.raises(
        BadInputError, match="device must be one of auto, cpu, cuda, mps, xpu, cuda:N, xpu:N, got"
    ):
        Request(methods=("source",), datasets=("pocket",), device=name)


@pytest.fixture
def two(monkeypatch):
    with device_double(), monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        yield


def test_a_number_beyond_the_last_device_is_refused_with_those_that_are_there(two):
    assert str(resolve_device("cuda:1")) == "cuda:1"
    with pytest.raises(BadInputError, match=r"device cuda:2 is not one of .* \(cuda:0, cuda:1\); choose one"):
        resolve_device("cuda:2")


def test_auto_is_cuda_where_there_is_one():
    with device_double():
        assert resolve_device("auto").type == "cuda"
    with device_double("mps"):
        assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_mps_refuses_float64_before_anything_runs():
    with (
        device_double("mps"),
        pytest.raises(IncompatibleError, match="device mps has no float64; choose precision"),
    ):
        asked("mps", precision="float64")


def test_the_number_of_a_device_is_no_part_of_the_identity(two):
    first, second = asked("cuda")[0], asked("cuda:1")[0]
    assert (first.device, second.device) == ("cuda", "cuda:1")
    assert first.identity() == second.identity()
    assert first.identity()["device"] == "cuda"
    assert asked("cpu")[0].identity() != first.identity()


def test_a_numbered_device_is_the_current_one_while_its_cell_runs(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: seen.append(str(device)) or torch.no_grad())
    for name in ("cuda:1", "cuda", "cpu"):
        with chosen(torch.device(name)):
            pass
    assert seen == ["cuda:1"]


@pytest.fixture
def placed(monkeypatch):
    monkeypatch.setattr(
        objects, "load_model", lambda *a, **k: tiny_source(classes=5, size=(3, 16, 16), device=k["device"])
    )


class Imperative(ModuleMethod):
    """Entropy minimisation in the imperative style."""

    card = fakes.replace(Tent.card, vmappable=False, fixed_shapes=False, grows=("optimizer",), idle=None)

    def build(self, source):
        module = source.module()
        return module, torch.optim.Adam([p.requires_grad_() for p in module.parameters()], lr=1e-3)

    def step(self, module, optimizer, images):
        logits = module(images)
        (-logits.softmax(1) * logits.log_softmax(1)).sum().backward()
        optimizer.step()
        return logits


METHODS = [Tent(), Memo(views=4), fakes.dataclass(frozen=True)(Imperative)(), fakes.Replay(), fakes.Drawn()]


@pytest.mark.parametrize(
    ("kind", "method"), [*(("cuda", one) for one in METHODS), ("xpu", Tent()), ("mps", Tent())]
)
def test_a_cell_on_another_device_predicts_what_the_cpu_does(placed, kind, method):
    reset = "image" if isinstance(method, Memo) else "shift"
    options = {"reset": reset, "dataset": fakes.LABELLED}
    whole, (done,), _ = run([cell(method, **options)])
    with device_double(kind):
        there, (ended,), _ = run([cell(method, device=kind, **options)])
        manifest = there.manifests[ended.cell]
    assert (done.status, ended.status) == ("complete", "complete"), manifest.error
    assert ended.cell != done.cell
    assert (manifest.protocol.device, manifest.machine.device) == (kind, kind)
    assert manifest.machine.device_mib == 16 * 2**10
    for name in ("prediction", "source_prediction", "label"):
        assert there.writers[ended.cell].column(name) == whole.writers[done.cell].column(name)
    peaks = there.writers[ended.cell].column("peak_mib")
    assert all(peak is None for peak in peaks) if kind == "mps" else all(peak == 0 for peak in peaks)


def test_a_machine_is_described_by_its_device():
    with device_double("xpu") as device:
        found = describe_machine(device)
    assert (found.device, found.device_name, found.cuda) == ("xpu", "a double", None)


def test_memory_is_pinned_for_cuda_alone(monkeypatch, placed):
    pinned = []

    class Loader:
        def __init__(self, made, pin_memory, **options):
            pinned.append(pin_memory)
            self.made = made

        def __iter__(self):
            return (self.made[index] for index in range(len(self.made)))

    class Prefetched(fakes.Noise):
        def batches(self, chunks, preprocess):
            return prefetch.prefetch(lambda chunk: self.load(chunk, preprocess), chunks, 1)

    monkeypatch.setattr(prefetch, "DataLoader", Loader)
    dataset = fakes.replace(fakes.NOISE, open=lambda opening: Prefetched(opening.shift))
    for kind in ("cpu", "mps", "cuda"):
        if kind == "cpu":
            run([cell(fakes.Counter(), dataset=dataset)])
            continue
        with device_double(kind):
            run([cell(fakes.Counter(), dataset=dataset, device=kind)])
    assert pinned == [False, False, False, False, True, True]
