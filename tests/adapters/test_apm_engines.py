# SPDX-License-Identifier: Apache-2.0
"""APM's engines: equal results in float64, what the active one leaves out, which one is chosen, what each costs."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from tta_bench.adapters.apm import _active as active
from tta_bench.adapters.apm import _cost as cost
from tta_bench.adapters.apm import _dims as students
from tta_bench.adapters.apm import _fit as fitting
from tta_bench.adapters.apm import _tiles as tiles
from tta_bench.adapters.apm._adam import Adam
from tta_bench.adapters.apm.method import Apm

from tta_bench.engine.meter import cpu_peak
from tta_bench.testing import tiny_clip, tiny_inputs

ENGINES = ("reference", "fast", "active")
WIDE = students.Dims((12, 20), 4, (9, 7), 12, (60, 40, 30), 3)


def problem(student, n, *, std=0.2, see=True, seed=0, dtype=torch.float64):
    """Weights, patches and targets of n students."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights, images = normal(n, student.size) * std, normal(n, 3, *student.dims.image)
    return weights, student.patches(images) if see else None, normal(n, student.feature)


def fit(student, problem_, engine, *, updates=6, adam=None, **way):
    return fitting.fit(
        student, *problem_, adam or Adam(0.002), updates, way=fitting.Way(engine=engine, **way)
    )


def assert_equal(found, expected, tolerance=1e-12):
    largest = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * max(largest, 1e-300))


@st.composite
def some_student(draw):
    heads = draw(st.sampled_from([1, 2, 3, 0]))
    feature = 4 * draw(st.integers(1, 3)) * max(heads, 1)
    widths = tuple(draw(st.integers(1, 24)) for _ in range(3))
    grid = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    dims = students.Dims((8, 12), 4, grid, 4 * draw(st.integers(1, 4)), widths, heads)
    pooling = draw(st.sampled_from(["attention", "mean"]))
    return students.Student(dims, feature, pooling, draw(st.integers(1, 3)))


@settings(max_examples=40, deadline=None)
@given(
    student=some_student(), n=st.integers(1, 3), see=st.booleans(), seed=st.integers(0, 99),
    std=st.sampled_from([0.05, 0.2, 0.5]), engine=st.sampled_from(["fast", "active"]),
)  # fmt: skip
def test_every_engine_gives_what_the_reference_gives(student, n, see, seed, std, engine):
    problem_ = problem(student, n, std=std, see=see, seed=seed)
    expected, found = (fit(student, problem_, name) for name in ("reference", engine))
    assert_equal(found.losses, expected.losses)
    assert_equal(found.predictions, expected.predictions)
    gradients = [fit(student, problem_, name, updates=1).moments.first for name in ("reference", engine)]
    assert_equal(gradients[1], gradients[0])


@settings(max_examples=40, deadline=None)
@given(
    student=some_student(), n=st.integers(1, 3), see=st.booleans(), seed=st.integers(0, 99),
    numbers=st.integers(1, 400), decay=st.sampled_from([0.0, 0.1]), every=st.sampled_from([0, 2]),
)  # fmt: skip
def test_adam_joined_with_the_gradients_gives_what_the_reference_gives(
    student, n, see, seed, numbers, decay, every
):
    problem_, adam = problem(student, n, see=see, seed=seed), Adam(0.002, weight_decay=decay, every=every)
    expected = fit(student, problem_, "reference", adam=adam)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles.Tiles.__init__, "__defaults__", (numbers,))
        found = fit(student, problem_, "fast", adam=adam, tiled=True)
        half = fit(student, problem_, "fast", adam=adam, updates=3, tiled=True)
        way = fitting.Way(engine="fast", tiled=True)
        whole = fitting.fit(student, half.weights, *problem_[1:], adam, 3, half.moments, way)
    assert_equal(found.losses, expected.losses)
    assert_equal(found.predictions, expected.predictions)
    # Adam divides a gradient by its own size, so the rounding of the smallest ones shows in the weights.
    assert_equal(found.weights, expected.weights, 1e-9)
    assert_equal(found.moments.first, expected.moments.first, 1e-9)
    assert_equal(found.moments.second, expected.moments.second, 1e-9)
    assert torch.equal(whole.weights, found.weights)


def test_joined_gradients_of_the_inner_weights_are_never_stored():
    student = students.Student(WIDE, 12)
    problem_ = problem(student, 1)
    fit(student, problem_, "fast")
    stored, joined = (
        cpu_peak(partial(fit, student, problem_, "fast", tiled=tiled)) for tiled in (False, True)
    )
    inner = sum(8 * student.shapes[name][0] * student.shapes[name][1] for name in tiles.INNER) / 2**20
    buffer = 8 * 60 * 40 / 2**20
    assert stored - joined == pytest.approx(inner - buffer, abs=0.005)


@pytest.mark.parametrize("engine", ["fast", "active"])
def test_the_first_gradient_of_every_tensor_is_the_references(engine):
    student = students.Student(WIDE, 12)
    problem_ = problem(student, 2)
    found, expected = (
        student.unpack(fit(student, problem_, name, updates=1).moments.first)
        for name in (engine, "reference")
    )
    for name in student.shapes:
        if name == "k.bias":
            assert not found[name].any()
            assert expected[name].abs().max() < 1e-15
        else:
            assert expected[name].any()
            assert_equal(found[name], expected[name])


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_the_active_engine_is_exact_where_it_leaves_out_and_where_it_factors(pooling):
    dims = WIDE._replace(widths=(300, 200, 90), grid=(14, 13))
    student = students.Student(dims, 24, pooling)
    problem_ = problem(student, 2, std=0.08, seed=3)
    for name in ("fast", "active"):
        assert_equal(
            fit(student, problem_, name).predictions, fit(student, problem_, "reference").predictions
        )
    weights = problem_[0][:1].clone()
    one = active.Active(student, weights, torch.zeros_like(weights), problem_[1][:1], problem_[2][:1])._each[
        0
    ]
    one.forward()
    for units, width in zip((one.units1, one.units2, one.units3), dims.widths, strict=True):
        assert len(units.on) > 0
        assert len(units.mixed) > 0
        assert len(units.alive) < width
    places = dims.grid[0] * dims.grid[1]
    assert active._factored(one.units3, 6, len(one.units2.alive), places) is one.units3
    assert len(active._factored(one.units2, 200, len(one.units1.mixed), 9).on) == 0


def test_the_bounds_of_the_first_layer_are_those_of_its_sums():
    generator = torch.Generator().manual_seed(1)
    down, across = (torch.randn(500, k, generator=generator) * 0.3 for k in (5, 7))
    units = active.partition(down.amin(1) + across.amin(1), down.amax(1) + across.amax(1))
    sums = (down[..., None] + across[:, None, :]).flatten(1)
    assert units.on.tolist() == [i for i in range(500) if (sums[i] > 0).all()]
    dead = set(range(500)) - set(units.alive.tolist())
    assert dead == {i for i in range(500) if not (sums[i] > 0).any()}
    zeros = active.partition(torch.zeros(2), torch.tensor([0.0, 1.0]))
    assert (zeros.on.tolist(), zeros.mixed.tolist()) == ([], [1])


@pytest.mark.parametrize(
    "values", [{"weight_decay": 0.1}, {"every": 2}, {"leftover": 1.0}, {"betas": (0.5, 0.7), "eps": 1e-3}]
)
def test_every_setting_of_the_optimiser_works_in_every_engine(values):
    student = students.Student(WIDE, 12)
    problem_ = problem(student, 2)
    found = [fit(student, problem_, name, adam=Adam(0.003, **values)).predictions for name in ENGINES]
    assert_equal(found[1], found[0])
    assert_equal(found[2], found[0])
    assert not torch.allclose(found[0], fit(student, problem_, "reference", adam=Adam(0.003)).predictions)


def test_the_reference_steps_as_the_librarys_optimiser_does():
    student = students.Student(WIDE, 12)
    weights, patches, target = problem(student, 2)
    leaf = weights.clone().requires_grad_()
    optimiser = torch.optim.Adam([leaf], lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.01)
    from tta_bench.adapters.apm._reference import forward

    for _ in range(5):
        optimiser.zero_grad()
        (forward(student, student.unpack(leaf), patches) - target).square().mean(-1).sum().backward()
        optimiser.step()
    settings_ = Adam(0.01, (0.8, 0.95), 1e-6, 0.01)
    for engine in ENGINES:
        found = fit(student, (weights, patches, target), engine, updates=5, adam=settings_).weights
        torch.testing.assert_close(found, leaf.detach(), rtol=0, atol=1e-9)


def test_float32_engines_agree_within_its_rounding():
    student = students.Student(students.SIZES["pocket"], 64)
    problem_ = problem(student, 3, std=0.01, dtype=torch.float32)
    exact = fit(student, [x.double() for x in problem_], "reference", updates=19, adam=Adam(1e-3)).predictions
    for engine in ENGINES:
        found = fit(student, problem_, engine, updates=19, adam=Adam(1e-3)).predictions
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-3)


def test_bfloat16_products_stay_near_and_leave_weights_in_float32():
    student = students.Student(students.SIZES["pocket"], 64)
    problem_ = problem(student, 4, std=0.01, dtype=torch.float32)
    exact, rough = (
        fit(student, problem_, "fast", updates=19, adam=Adam(1e-3), products=p) for p in ("full", "bfloat16")
    )
    assert rough.weights.dtype == torch.float32
    cosines = torch.cosine_similarity(rough.predictions[-1], exact.predictions[-1])
    assert (cosines > 0.97).all()
    assert not torch.equal(rough.predictions, exact.predictions)
    full = fit(student, problem_, "fast", updates=19, adam=Adam(1e-3), products="tf32")
    assert torch.equal(full.predictions, exact.predictions)


def test_tensor_float_rounds_the_inner_products_alone(monkeypatch):
    student = students.Student(students.SIZES["pocket"], 64)
    weights, patches, target = problem(student, 2, std=0.01, dtype=torch.float32)
    made = fitting.make_engine("fast", student, weights, torch.zeros_like(weights), patches, target, "tf32")
    assert not made.tensor_float
    made.tensor_float, seen = True, []
    for name in ("bmm", "baddbmm", "matmul"):
        real = getattr(torch, name)

        def watched(*tensors, real=real, **out):
            seen.append((torch.get_float32_matmul_precision(), tuple(tensors[-2].shape)))
            return real(*tensors, **out)

        monkeypatch.setattr(torch, name, watched)
    before = torch.get_float32_matmul_precision()
    made.forward()
    made.backward()
    first, second, third = student.dims.widths
    inner = [shape for precision, shape in seen if precision == "high"]
    places = student.grid[0] * student.grid[1]
    layers = [(second, first), (third, second)]
    gradients = [(second, third), (third, places), (first, second), (second, places)]
    assert inner == [(2, *shape) for shape in layers + gradients]
    assert len(seen) > len(inner)
    assert torch.get_float32_matmul_precision() == before


def test_the_engine_is_chosen_by_device_and_size():
    published, pocket = (students.Student(students.SIZES[name], 768) for name in ("published", "pocket"))
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert fitting.choose("auto", published, cpu) == "active"
    assert fitting.choose("auto", published, cuda) == "fast"
    assert fitting.choose("auto", pocket, cpu) == "fast"
    assert fitting.choose("reference", published, cuda) == "reference"
    source = tiny_clip()
    assert Apm().notes(source) == {"engine": "fast"}
    assert Apm(engine="active").notes(source) == {"engine": "active"}
    assert fitting.at_once(published, torch.zeros(1)) == 1
    assert fitting.at_once(students.Student(students.SIZES["pocket"], 64), torch.zeros(1)) > 8


def test_a_small_fit_is_the_same_for_every_number_of_threads_and_leaves_it():
    student = students.Student(students.SIZES["pocket"], 64)
    given_ = problem(student, 3, std=0.01, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            found.append(fit(student, given_, "auto").predictions)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*found)


def counted(work):
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("see", [True, False])
@pytest.mark.parametrize("pooling", ["attention", "mean"])
@pytest.mark.parametrize("engine", ["reference", "fast"])
def test_the_formula_counts_what_the_library_counts(engine, pooling, see):
    student = students.Student(WIDE, 12, pooling)
    weights, patches, target = problem(student, 2, see=see)
    made = fitting.make_engine(engine, student, weights, torch.zeros_like(weights), patches, target)
    passes = {"reference": cost.reference_passes, "fast": cost.fast_passes}[engine](student, image=see)
    assert counted(made.forward) / 2 == pytest.approx(passes.forward, rel=0.02)
    assert counted(made.backward) / 2 == pytest.approx(passes.backward, rel=0.02)


def test_the_costs_of_a_step_are_those_of_the_step():
    source, method = tiny_clip(), Apm(dims=WIDE._replace(image=(16, 16), heads=0), iterations=4)
    inputs = tiny_inputs(source, 1, method=method)
    costs = method.costs(source, inputs)
    expected = counted(lambda: method.adapt(source, {}, inputs))
    assert sum(c.times * c.multiply_adds for c in costs) == pytest.approx(expected, rel=0.02)
    assert sum(c.times * counted(c.work) for c in costs if c.work) == pytest.approx(expected, rel=0.02)
    assert {c.part: c.moved_bytes for c in costs}["optimiser"] == 28 * method.student(source).size
    skipping = Apm(dims=method.dims, engine="active").costs(source, inputs)
    assert [c.multiply_adds for c in skipping] == [None, None, 0]
    assert all(counted(c.work) > 0 for c in skipping if c.work)


def test_the_formulas_give_the_figures_of_the_documents():
    student = students.Student(students.SIZES["published"], 768)
    assert cost.reference_passes(student, image=True) == (21_343_973_376, 42_687_344_640)
    assert cost.fast_passes(student, image=True) == (10_908_545_024, 21_675_323_392)
    assert cost.adam_bytes(student, 4) == 28 * 22_032_461
