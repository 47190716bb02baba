# SPDX-License-Identifier: Apache-2.0
"""Pure optimisers against torch.optim, and gradients against autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tta_bench.errors import BadInputError
from tta_bench.optim import Descent, adam, adam_init, ema, functional, gradient, sam_ascent, sgd, sgd_init

STEPS = 6
LIMIT = 1e-12
rates = st.floats(1e-5, 0.5)
shares = st.floats(0.0, 0.999)
decays = st.sampled_from([0.0, 1e-4, 0.1])


def problem(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"w": (3, 4), "b": (3,), "scale": ()}
    params = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    grads = [
        {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
        for _ in range(STEPS)
    ]
    return params, grads


def by_library(make, params, grads):
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    optimizer = make(list(leaves.values()))
    for each in grads:
        for name, leaf in leaves.items():
            leaf.grad = each[name].clone()
        optimizer.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}


def by_us(update, start, params, grads, **settings):
    state = start(params)
    for each in grads:
        params, state = update(params, each, state, **settings)
    return params


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == torch.float64
        assert torch.allclose(first[name], second[name], rtol=LIMIT, atol=LIMIT), name


@settings(max_examples=40, deadline=None)
@given(
    lr=rates,
    betas=st.tuples(shares, shares),
    eps=st.sampled_from([1e-8, 1e-6, 1e-3]),
    decay=decays,
    decoupled=st.booleans(),
    seed=st.integers(0, 999),
)
def test_adam_and_adamw_are_the_library_s(lr, betas, eps, decay, decoupled, seed):
    params, grads = problem(seed)
    library = torch.optim.AdamW if decoupled else torch.optim.Adam
    expected = by_library(
        lambda p: library(p, lr=lr, betas=betas, eps=eps, weight_decay=decay, foreach=False), params, grads
    )
    found = by_us(
        adam, adam_init, params, grads, lr=lr, betas=betas, eps=eps, weight_decay=decay, decoupled=decoupled
    )
    assert_same(found, expected)


@settings(max_examples=40, deadline=None)
@given(lr=rates, momentum=shares, nesterov=st.booleans(), decay=decays, seed=st.integers(0, 999))
def test_sgd_is_the_library_s(lr, momentum, nesterov, decay, seed):
    params, grads = problem(seed)
    nesterov = nesterov and momentum > 0
    expected = by_library(
        lambda p: torch.optim.SGD(
            p, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay, foreach=False
        ),
        params,
        grads,
    )
    found = by_us(
        sgd, sgd_init, params, grads, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=decay
    )
    assert_same(found, expected)


@pytest.mark.parametrize(("update", "start"), [(adam, adam_init), (sgd, sgd_init)])
def test_an_update_writes_to_none_of_its_arguments(update, start):
    params, grads = problem(0)
    params, state = update(params, grads[0], start(params), lr=0.1)
    kept = torch.utils._pytree.tree_map(torch.clone, (params, grads[1], state))
    update(params, grads[1], state, lr=0.1)
    before, after = (torch.utils._pytree.tree_leaves(tree) for tree in (kept, (params, grads[1], state)))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("start", [adam_init, sgd_init])
def test_a_state_is_made_of_tensors_of_the_parameters_type(start):
    params = {"w": torch.ones(2, dtype=torch.float32)}
    leaves = torch.utils._pytree.tree_leaves(start(params))
    assert all(isinstance(leaf, torch.Tensor) for leaf in leaves)
    assert {leaf.dtype for leaf in leaves if leaf.is_floating_point()} == {torch.float32}


def test_float32_parameters_stay_float32_after_an_update():
    params = {"w": torch.ones(2)}
    new, state = adam(params, {"w": torch.ones(2)}, adam_init(params), lr=0.1)
    assert new["w"].dtype == state["m"]["w"].dtype == torch.float32


def _loss(params):
    inner = torch.tanh(params["w"] @ params["x"]) * params["b"]
    return inner.square().sum(), {"inner": inner}


def _point():
    generator = torch.Generator().manual_seed(3)
    shapes = {"w": (3, 4), "x": (4,), "b": (3,), "idle": (2,)}
    return {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}


def _by_autograd(point):
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in point.items()}
    value, aux = _loss(leaves)
    value.backward()
    zero = torch.zeros(2, dtype=torch.float64)
    return {n: zero if leaf.grad is None else leaf.grad for n, leaf in leaves.items()}, value.detach(), aux


@pytest.mark.parametrize("outside", [True, False])
def test_gradient_is_autograd_s_whatever_the_grad_mode_outside(outside):
    expected, value, aux = _by_autograd(_point())
    with torch.set_grad_enabled(outside):
        grads, found, extra = gradient(_loss, _point())
    assert_same(grads, expected)
    assert torch.equal(found, value)
    assert torch.equal(extra["inner"], aux["inner"].detach())
    assert not any(tensor.requires_grad for tensor in (found, extra["inner"], *grads.values()))


def test_gradient_works_inside_vmap():
    point, scales = _point(), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def scaled(scale):
        return gradient(_loss, {**point, "b": point["b"] * scale})[0]

    with functional():
        together = torch.func.vmap(scaled)(scales)
    for index, scale in enumerate(scales):
        assert_same({name: grad[index] for name, grad in together.items()}, scaled(scale))


def test_gradient_leaves_its_arguments_without_one():
    point = _point()
    gradient(_loss, point)
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in point.values())


DESCENTS = [
    (Descent("adam", 0.02, betas=(0.8, 0.95), weight_decay=0.1), torch.optim.Adam, {"betas": (0.8, 0.95)}),
    (Descent("adamw", 0.02, weight_decay=0.1), torch.optim.AdamW, {}),
    (Descent("sgd", 0.02, momentum=0.7, nesterov=True, weight_decay=0.1), torch.optim.SGD,
     {"momentum": 0.7, "nesterov": True}),
    (Descent("sgd", 0.02, momentum=0.0, weight_decay=0.1), torch.optim.SGD, {}),
]  # fmt: skip


@pytest.mark.parametrize(("descent", "library", "settings"), DESCENTS)
def test_a_descent_is_the_library_s_optimiser_of_that_name(descent, library, settings):
    params, grads = problem(3)
    expected = by_library(lambda p: library(p, lr=0.02, weight_decay=0.1, **settings), params, grads)
    state = descent.init(params)
    for each in grads:
        params, state = descent.step(params, each, state)
    assert_same(params, expected)


def test_sgd_without_momentum_keeps_no_buffers():
    params, grads = problem(0)
    descent = Descent("sgd", 0.1, momentum=0.0)
    _, state = descent.step(params, grads[0], descent.init(params))
    assert state == {"momentum": {}}


@pytest.mark.parametrize(
    "values",
    [
        {"name": "lion"},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"momentum": -0.1},
        {"weight_decay": -1.0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_a_descent_refuses_settings_out_of_range(values):
    with pytest.raises(BadInputError):
        Descent(**({"name": "adam", "lr": 0.1} | values))


def test_the_ascent_has_the_length_rho_along_the_joint_gradient():
    params, grads = problem(1)
    raised = sam_ascent(params, grads[0], rho=0.3)
    step = torch.cat([(raised[name] - params[name]).flatten() for name in params])
    slope = torch.cat([grads[0][name].flatten() for name in params])
    assert step.norm() == pytest.approx(0.3, abs=1e-9)
    assert torch.cosine_similarity(step, slope, dim=0) == pytest.approx(1, abs=1e-12)
    nothing = {name: torch.zeros_like(p) for name, p in params.items()}
    assert_same(sam_ascent(params, nothing, rho=0.3), params)


def test_the_moving_average_is_a_weighted_sum():
    average = ema({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([5.0, 0.0])}, keep=0.75)
    assert average["w"].tolist() == [2.0, 1.5]


def test_a_loss_without_a_graph_has_zero_gradients():
    params, _ = problem(2)
    grads, value, aux = gradient(lambda p: (torch.zeros(()), p["w"].sum()), params)
    assert value == 0
    assert aux == params["w"].sum()
    assert not any(grad.any() for grad in grads.values())
