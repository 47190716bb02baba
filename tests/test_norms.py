# SPDX-License-Identifier: Apache-2.0
"""Normalisation rules against nn.BatchNorm2d and against formulas written out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tta_bench.norms import NormLayer, batch, blend, running, track, unmixed
from tta_bench.testing import tiny_images, tiny_source

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def library_layer(channels=3, momentum=0.1, affine=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.BatchNorm2d(channels, momentum=momentum, affine=affine, dtype=torch.float64)
    with torch.no_grad():
        for tensor in (*layer.parameters(), layer.running_mean):
            tensor.copy_(torch.randn(channels, generator=generator, dtype=torch.float64))
        layer.running_var.copy_(torch.rand(channels, generator=generator, dtype=torch.float64) + 0.5)
    return layer


def seen_by_rule(layer):
    weight, bias = (None if t is None else t.detach() for t in (layer.weight, layer.bias))
    return NormLayer("norm", layer.running_mean, layer.running_var, weight, bias, layer.eps, layer.momentum)


def maps(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + 0.5


def by_hand(x, mean, var, layer):
    view = (1, -1, 1, 1)
    y = (x - mean.view(view)) / torch.sqrt(var.view(view) + layer.eps)
    return y if layer.weight is None else y * layer.weight.view(view) + layer.bias.view(view)


shapes = st.tuples(st.integers(1, 5), st.just(3), st.integers(1, 4), st.integers(1, 4))


@settings(deadline=None, max_examples=30)
@given(shapes, st.booleans())
def test_running_is_the_library_s_evaluation_mode(shape, affine):
    layer, x = library_layer(affine=affine), maps(*shape)
    y, stats = running()(x, seen_by_rule(layer))
    assert stats is None
    assert torch.allclose(y, layer.eval()(x), **CLOSE)


@settings(deadline=None, max_examples=30)
@given(shapes.filter(lambda s: s[0] * s[2] * s[3] > 1), st.booleans())
def test_batch_is_the_library_s_training_mode(shape, affine):
    layer, x = library_layer(affine=affine), maps(*shape)
    y, stats = batch()(x, seen_by_rule(layer))
    assert stats is None
    assert torch.allclose(y, layer.train()(x), **CLOSE)


@settings(deadline=None, max_examples=30)
@given(shapes.filter(lambda s: s[0] * s[2] * s[3] > 1), st.floats(0, 1), st.booleans())
def test_track_gives_the_library_s_output_and_its_running_statistics(shape, momentum, own):
    layer, x = library_layer(momentum=momentum), maps(*shape)
    y, stats = track(None if own else momentum)(x, seen_by_rule(layer))
    before = layer.running_mean.clone()
    assert torch.allclose(y, layer.train()(x), **CLOSE)
    assert torch.allclose(stats.mean, layer.running_mean, **CLOSE)
    assert torch.allclose(stats.var, layer.running_var, **CLOSE)
    assert momentum < 1e-3 or not torch.equal(before, layer.running_mean)


@settings(deadline=None, max_examples=30)
@given(shapes, st.floats(0, 1), st.booleans())
def test_blend_mixes_stored_and_batch_statistics(shape, alpha, unbiased):
    layer, x = library_layer(), maps(*shape)
    count = shape[0] * shape[2] * shape[3]
    mean = x.sum((0, 2, 3)) / count
    squares = (x - mean.view(1, -1, 1, 1)).square().sum((0, 2, 3))
    var = squares / (count - 1 if unbiased and count > 1 else count)
    mean = (1 - alpha) * layer.running_mean + alpha * mean
    var = (1 - alpha) * layer.running_var + alpha * var
    y, stats = blend(alpha, unbiased=unbiased, store=True)(x, seen_by_rule(layer))
    assert torch.allclose(y, by_hand(x, mean, var, layer), **CLOSE)
    assert torch.allclose(stats.mean, mean, **CLOSE)
    assert torch.allclose(stats.var, var, **CLOSE)


def test_blend_of_nothing_is_running_and_of_everything_is_batch():
    layer, x = seen_by_rule(library_layer()), maps(4, 3, 2, 2)
    assert torch.allclose(blend(0.0)(x, layer)[0], running()(x, layer)[0], **CLOSE)
    assert torch.allclose(blend(1.0, unbiased=False)(x, layer)[0], batch()(x, layer)[0], **CLOSE)
    assert blend(0.3)(x, layer)[1] is None


@pytest.mark.parametrize("detach", [True, False])
def test_a_detached_blend_carries_no_gradient_through_its_statistics(detach):
    layer, x = seen_by_rule(library_layer()), maps(4, 3, 2, 2).requires_grad_()
    y, _ = blend(1.0, unbiased=False, detach=detach)(x, layer)
    (grad,) = torch.autograd.grad(y.sum(), x)
    scale = layer.weight / torch.sqrt(x.detach().var((0, 2, 3), correction=0) + layer.eps)
    expected = scale.view(1, -1, 1, 1).expand_as(x) if detach else torch.zeros_like(x)
    assert torch.allclose(grad, expected, atol=1e-10)


def test_one_value_per_channel_has_variance_zero():
    layer, x = seen_by_rule(library_layer()), maps(1, 3, 1, 1)
    y, _ = batch()(x, layer)
    assert torch.allclose(y, layer.bias.view(1, -1, 1, 1).expand_as(x), **CLOSE)
    y, stats = track(0.25)(x, layer)
    assert torch.allclose(stats.mean, 0.75 * layer.mean + 0.25 * x.flatten(), **CLOSE)
    assert torch.allclose(stats.var, 0.75 * layer.var, **CLOSE)
    with pytest.raises(ValueError, match="more than 1 value"):
        library_layer().train()(x)


@pytest.mark.parametrize("rule", [running(), batch(), blend(0.3, store=True), track(0.3)])
def test_statistics_that_come_back_are_detached_and_nothing_is_written(rule):
    layer, x = seen_by_rule(library_layer()), maps(4, 3, 2, 2).requires_grad_()
    kept = [tensor.clone() for tensor in layer[1:5]]
    _, stats = rule(x, layer)
    assert stats is None or not (stats.mean.requires_grad or stats.var.requires_grad)
    assert all(torch.equal(a, b) for a, b in zip(kept, layer[1:5], strict=True))


def test_rules_survive_vmap():
    layer, x = seen_by_rule(library_layer()), maps(5, 1, 3, 4, 4)
    for rule in (running(), batch(), blend(0.3), track(0.3)):
        together = torch.func.vmap(lambda one, rule=rule: rule(one, layer)[0])(x)
        assert torch.allclose(together, torch.stack([rule(one, layer)[0] for one in x]), **CLOSE)


def imperative(source):
    """The same network with the library's own layers, over normalised images."""
    return source.module()


@pytest.mark.parametrize(("rule", "training"), [(running(), False), (batch(), True), (track(), True)])
def test_a_whole_model_agrees_with_the_library_s_layers(rule, training):
    source = tiny_source("batch", dtype=torch.float64)
    images, module = tiny_images(source, 6, 0), imperative(source)
    expected = module.train(training)(images)
    found = source.forward(images, norm=rule)
    assert torch.allclose(found.logits, expected, **CLOSE)
    buffers = {name: b for name, b in module.named_buffers() if "running" in name}
    assert found.stats.keys() == (
        set(n.removeprefix("network.model.") for n in buffers)
        if rule(maps(2, 3, 2, 2), seen_by_rule(library_layer()))[1]
        else set()
    )
    for name, value in found.stats.items():
        assert torch.allclose(value, buffers[f"network.model.{name}"], **CLOSE)


def test_a_source_model_is_never_written_to():
    source = tiny_source("batch")
    kept = {name: t.clone() for name, t in {**source.params, **source.buffers}.items()}
    sha, images = source.weights_sha256, tiny_images(source, 4, 0)
    module = source.module().train()
    for rule in (running(), batch(), blend(0.5, store=True), track(0.5)):
        stats = source.forward(images, norm=rule).stats
        source.logits(images, {**source.normalisation(), **stats}, norm=rule)
        module(images)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.zero_()
    again = {**source.params, **source.buffers}
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    del source.__dict__["weights_sha256"]
    assert source.weights_sha256 == sha


def test_a_source_model_refuses_new_tensors():
    source = tiny_source("batch")
    with pytest.raises(TypeError):
        source.params["fc.weight"] = torch.zeros(1)  # type: ignore[index]
    assert not any(p.requires_grad for p in source.params.values())


def test_a_rule_does_not_outlive_its_call():
    source = tiny_source("batch")
    images = tiny_images(source, 4, 0)
    before = source.logits(images)
    assert not torch.equal(source.logits(images, norm=batch()), before)
    assert torch.equal(source.logits(images), before)
    twin = copy.deepcopy(before)
    with pytest.raises(ZeroDivisionError):
        source.logits(images, norm=lambda x, layer: 1 / 0)
    assert torch.equal(source.logits(images), twin)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 5), st.booleans(), st.booleans())
def test_unmixed_normalises_each_instance_by_the_mixture_of_components(count, instances, between, affine):
    layer, x = library_layer(affine=affine), maps(instances, 3, 4, 5)
    generator = torch.Generator().manual_seed(count)
    means = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    variances = torch.rand(count, 3, generator=generator, dtype=torch.float64) + 0.2
    components = {"norm.running_mean": means, "norm.running_var": variances}
    share = torch.tensor(0.25, dtype=torch.float64)
    y, stats = unmixed(components, share, 0.5, between=between)(x, seen_by_rule(layer))
    moved_means, moved_variances = means.clone(), variances.clone()
    m = 1 - 0.9**0.25
    for i in range(instances):
        a, s = x[i].mean((1, 2)), x[i].var((1, 2), correction=0)
        p = torch.stack([torch.cosine_similarity(a, one, dim=0) for one in means]).div(0.5).softmax(0)
        parts = [(1 - p[k]) * means[k] + p[k] * a for k in range(count)]
        spreads = [
            (1 - p[k]) * variances[k] + p[k] * s + between * p[k] * (1 - p[k]) * (a - means[k]) ** 2
            for k in range(count)
        ]
        mean = sum(parts) / count
        var = sum(spread + (part - mean) ** 2 for spread, part in zip(spreads, parts, strict=True)) / count
        assert torch.allclose(y[i], by_hand(x[i : i + 1], mean, var, layer)[0], rtol=1e-9, atol=1e-9)
        for k in range(count):
            moved_means[k] += m * p[k] * (a - means[k]) / instances
            moved_variances[k] += m * p[k] * (s - variances[k]) / instances
    assert torch.allclose(stats.mean, moved_means, **CLOSE)
    assert torch.allclose(stats.var, moved_variances, **CLOSE)


def test_unmixed_lets_gradients_through_an_instance_s_statistics_but_not_its_likeness():
    layer = library_layer()
    components = {
        "norm.running_mean": torch.zeros(1, 3).double(),
        "norm.running_var": torch.ones(1, 3).double(),
    }
    x = maps(2, 3, 4, 4).requires_grad_()
    y, stats = unmixed(components, torch.ones(()).double(), 0.07)(x, seen_by_rule(layer))
    assert not stats.mean.requires_grad
    (ours,) = torch.autograd.grad(y[:, :, 0, 0].sum(), x)
    plain = nn.functional.instance_norm(x, weight=layer.weight, bias=layer.bias, eps=layer.eps)
    (expected,) = torch.autograd.grad(plain[:, :, 0, 0].sum(), x)  # one component: p is 1
    assert torch.allclose(ours, expected, rtol=1e-8, atol=1e-10)
