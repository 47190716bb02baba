# SPDX-License-Identifier: Apache-2.0
"""SAR: ascent and descent, recovery, and which layers it leaves alone."""

import math

import pytest
import timm
import torch
from tta_bench.adapters.sar import Sar

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.losses import entropy
from tta_bench.testing import tiny_images, tiny_task


def test_it_keeps_its_promises():
    assert not [result for result in check_method(Sar()) if result.bad]


def test_the_update_is_that_of_a_plain_loop(grouped, run):
    batches = [tiny_images(grouped, 8, seed) for seed in range(3)]
    method = Sar(lr=0.1, margin=0.8, rho=0.1, recovery=0.0)
    _, scores = run(method, grouped, batches)
    leaves = {name: p.clone().requires_grad_() for name, p in method.tensors(grouped).items()}
    optimizer, limit = torch.optim.SGD(list(leaves.values()), lr=0.1, momentum=0.9), 0.8 * math.log(5)
    for images, found in zip(batches, scores, strict=True):
        logits = grouped.logits(images, leaves)
        assert torch.allclose(found, logits, atol=1e-5)
        first = entropy(logits) < limit
        entropy(logits)[first].mean().backward()
        norm = torch.cat([leaf.grad.flatten() for leaf in leaves.values()]).norm()
        start = {name: leaf.detach().clone() for name, leaf in leaves.items()}
        with torch.no_grad():
            for leaf in leaves.values():
                leaf += 0.1 * leaf.grad / norm
        optimizer.zero_grad()
        h = entropy(grouped.logits(images, leaves))[first]
        h[h < limit].mean().backward()
        with torch.no_grad():
            for name, leaf in leaves.items():
                leaf.copy_(start[name])
        optimizer.step()
        optimizer.zero_grad()


def test_a_collapse_restores_the_first_state_with_its_momentum(grouped, run, same):
    batches = [tiny_images(grouped, 8, 0)] * 2
    states, scores = run(Sar(lr=0.1, margin=1.0, recovery=100.0), grouped, batches)
    assert same(states[0], states[1])
    assert torch.equal(scores[0], scores[1])


@pytest.mark.parametrize("quirk", [False, True])
def test_momentum_moves_on_without_a_reliable_sample_only_as_a_quirk(grouped, run, same, quirk):
    images = tiny_images(grouped, 8, 0)
    method = Sar(lr=0.1, margin=1.0, recovery=0.0, reference_quirk=quirk)
    states, _ = run(method, grouped, [images, torch.full_like(images, torch.nan)])
    assert not same(states[0], states[1])
    assert same(states[1]["params"], states[2]["params"]) != quirk
    assert all(torch.isfinite(p).all() for p in states[2]["params"].values())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("name", "kept", "left"),
    [
        ("resnet18", ["bn1.weight", "layer3.1.bn2.bias"], ["layer4.0.bn1.weight"]),
        ("vit_tiny_patch16_224", ["blocks.8.norm2.weight"], ["blocks.9.norm1.weight", "norm.weight"]),
        (
            "convnext_atto",
            ["stages.2.blocks.5.norm.weight"],
            ["stages.3.blocks.0.norm.weight", "head.norm.weight"],
        ),
    ],
)
def test_the_top_of_the_network_is_left_alone(name, kept, left):
    source = _timm(name)
    adapted = set(Sar().adapted_tensors(source))
    assert adapted >= set(kept)
    assert not adapted & set(left)
    assert set(left) <= set(source.normalisation())


def _timm(name):
    from tta_bench.models.loading import load_model

    assert name in timm.list_models()
    return load_model(f"timm/{name}", [str(i) for i in range(1000)], pretrained=False, seed=0)


def test_layers_can_be_named(grouped):
    assert Sar(layers=("norm",)).adapted_tensors(grouped) == ("norm.weight", "norm.bias")
    with pytest.raises(UnknownNameError, match="norm layer"):
        Sar(layers=("nrom",)).adapted_tensors(grouped)


def test_a_batch_of_one_and_a_model_without_norms(grouped, run, without_norms):
    _, scores = run(Sar(margin=1.0), grouped, [tiny_images(grouped, 1, 0)])
    assert torch.isfinite(scores[0]).all()
    with pytest.raises(IncompatibleError):
        Sar().init(without_norms, tiny_task(without_norms, Sar()))


@pytest.mark.parametrize("values", [{"margin": -1.0}, {"rho": -0.1}, {"recovery": -0.1}])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Sar(**values)
