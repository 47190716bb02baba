# SPDX-License-Identifier: Apache-2.0
"""The double of a device: tensors say where they lie, and what a device refuses is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tta_bench.testing import device_double

MIXED = (
    r"found at least two devices, cuda:0 and cpu! \(aten\.{}, in which a tensor of shape \({}\) is on cpu\)"
)


@pytest.fixture
def cuda():
    with device_double() as device:
        yield device


@pytest.fixture
def ones(cuda):
    return torch.ones(2, device=cuda)


def places(*tensors):
    return [str(one.device) for one in tensors]


def test_a_tensor_says_where_it_lies(cuda, ones):
    assert places(
        ones, ones + 1, ones[:1], ones.new_zeros(3), ones.new_tensor([1.0]), ones.to(torch.float64)
    ) == (["cuda:0"] * 6)
    assert (
        places(torch.ones(2), ones.cpu(), ones.new_zeros(3, device="cpu"), torch.ones(2).to("cpu"))
        == ["cpu"] * 4
    )
    assert (ones.is_cuda, ones.is_cpu, ones.get_device()) == (True, False, 0)
    assert (
        places(torch.ones(2).to(ones), torch.ones(2).type_as(ones), torch.ones(2).cuda(0)) == ["cuda:0"] * 3
    )


def test_outside_nothing_is_pretended():
    generator = torch.Generator
    with device_double():
        assert torch.cuda.is_available()
        assert torch.cuda.device_count() == 1
    assert torch.Generator is generator
    assert torch.ones(2).device.type == "cpu"


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda x: x + torch.zeros(2), MIXED.format("add", "2,")),
        (lambda x: torch.zeros(2).mul_(x[0]), MIXED.format("mul_", "2,")),
        (lambda x: torch.tensor(1.0).add_(x[0]), MIXED.format("add_", "")),
        (lambda x: torch.cat([x, torch.zeros(1)]), MIXED.format("cat", "1,")),
        (lambda x: torch.zeros(3)[x.long()], MIXED.format("index", "3,")),
        (lambda x: x.numpy(), "convert cuda:0 device type tensor to numpy"),
        (np.asarray, "convert cuda:0 device type tensor to numpy"),
        (lambda x: torch.rand(2, generator=torch.Generator(x.device)), "Expected a 'cpu' .* found 'cuda'"),
        (
            lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
            "Expected a 'cuda' .* found 'cpu'",
        ),
        (lambda x: torch.bernoulli(x, generator=torch.Generator()), "Expected a 'cuda' .* found 'cpu'"),
    ],
)
def test_what_cuda_refuses_is_refused(ones, work, sentence):
    with pytest.raises((RuntimeError, TypeError), match=sentence):
        work(ones)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x * torch.tensor(2.0),
        lambda x: x[torch.tensor([1, 0])],
        lambda x: torch.zeros(2, device=x.device).copy_(torch.ones(2)),
        lambda x: torch.rand(2, device=x.device, generator=torch.Generator(x.device).manual_seed(0)),
        lambda x: nn.functional.one_hot(x.long(), 3),
        lambda x: torch.as_tensor(np.ones(2), device="cuda"),
        lambda x: torch.eye(2, device=x.device).to_sparse() @ x,
    ],
)
def test_what_cuda_allows_is_allowed(ones, work):
    assert work(ones).device == ones.device


def test_numbers_come_back_and_lists_of_them_make_a_tensor_on_the_cpu(ones):
    assert (float(ones[0]), ones.tolist()) == (1.0, [1.0, 1.0])
    assert places(
        torch.tensor([ones[0], ones[1]]), torch.full((2,), ones[0]), torch.arange(int(ones.sum()))
    ) == (["cpu"] * 3)


def test_what_is_moved_is_a_copy(cuda):
    numbers, tensor = np.zeros(2), torch.zeros(2)
    for there in (
        torch.as_tensor(numbers, device=cuda),
        tensor.to(cuda),
        torch.as_tensor(tensor, device=cuda),
    ):
        there.add_(1)
    assert numbers.sum() == tensor.sum() == 0
    assert tensor.device.type == "cpu"


def test_a_gradient_goes_back_over_the_border(cuda):
    weight = torch.ones(2, requires_grad=True)
    (weight.to(cuda) * torch.full((2,), 3.0, device=cuda)).sum().backward()
    assert weight.grad.device.type == "cpu"
    assert weight.grad.tolist() == [3.0, 3.0]


def test_a_module_its_copies_and_its_gradients_follow_it(cuda):
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to(cuda, torch.float64)
    net(torch.ones(3, 2, device=cuda, dtype=torch.float64)).sum().backward()
    again = copy.deepcopy(net)
    assert places(
        net[0].weight, net[0].weight.grad, net[1].running_mean, again[0].weight, again[1].running_mean
    ) == (["cuda:0"] * 5)
    counters = copy.deepcopy({"count": torch.zeros(()), "weight": net[0].weight, "later": torch.zeros(())})
    assert places(*counters.values()) == ["cpu", "cuda:0", "cpu"]
    with pytest.raises(RuntimeError, match=MIXED.format("addmm", "3, 2")):
        net(torch.ones(3, 2, dtype=torch.float64))


def test_vmap_and_grad_are_seen_through(cuda, ones):
    def loss(x):
        assert x.device == cuda
        return (x * ones[0]).square().sum()

    assert torch.func.vmap(torch.func.grad(loss))(ones).device == cuda
    with pytest.raises(RuntimeError, match="at least two devices"):
        torch.func.vmap(lambda x: x + torch.zeros(3))(ones)


def test_products_round_under_autocast(cuda):
    square = torch.ones(2, 2, device=cuda)
    with torch.autocast("cuda", torch.bfloat16):
        assert (square @ square).dtype == torch.bfloat16


def test_a_graph_repeats_what_was_captured_on_the_same_memory(cuda):
    total, step = torch.zeros(2, device=cuda), 1
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total.add_(step)
        twice = total * 2
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
            float(twice[0])
    assert total.tolist() == [0, 0]  # a capture runs nothing
    step = 100
    for _ in range(2):
        graph.replay()
    assert (total.tolist(), twice.tolist()) == ([2, 2], [4, 4])


def test_mps_has_no_float64():
    with device_double("mps") as device:
        assert torch.ones(2, device=device).device.type == "mps"
        for work in (
            lambda: torch.ones(2, device=device, dtype=torch.float64),
            lambda: torch.ones(2, dtype=torch.float64).to(device),
            lambda: torch.ones(2, device=device).double(),
        ):
            with pytest.raises(TypeError, match="float64"):
                work()
        assert torch.ones(2, dtype=torch.float64).to(device, torch.float32).device.type == "mps"
