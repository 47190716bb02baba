# SPDX-License-Identifier: Apache-2.0
"""APM: students that do not see each other, the control without the image, and what is read and recorded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tta_bench.adapters.apm import _dims as students
from tta_bench.adapters.apm import _fit as fitting
from tta_bench.adapters.apm import _reference as reference
from tta_bench.adapters.apm._islands import Colours
from tta_bench.adapters.apm.method import CHOICES, Apm

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.steps import slice_inputs, step
from tta_bench.testing import tiny_clip, tiny_inputs, tiny_source, tiny_task

INF, NAN = float("inf"), float("nan")
SMALL = students.Dims((8, 12), 4, (3, 2), 8, (10, 8, 6))


def run(method, source, inputs, way="native"):
    return step(method, source, method.init(source, tiny_task(source, method)), inputs, way=way)


def small(**values):
    return Apm(**{"dims": SMALL, "iterations": 6, "lr": 0.01, "weight_std": 0.2, **values})


@pytest.fixture(scope="module")
def source():
    return tiny_clip(dtype=torch.float64)


@settings(max_examples=12, deadline=None)
@given(
    cut=st.integers(1, 6), control=st.sampled_from(["image", "none"]), per=st.integers(1, 4),
    engine=st.sampled_from(["reference", "fast", "active"]),
)  # fmt: skip
def test_an_images_result_does_not_depend_on_the_others(cut, control, per, engine):
    source, method = tiny_clip(dtype=torch.float64), small(input=control, engine=engine)
    inputs = tiny_inputs(source, 7, method=method, seed=cut)
    whole = run(method, source, inputs).scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "AT_ONCE_ON_CPU", per * method.student(source).size)
        parts = [run(method, source, slice_inputs(inputs, *ends)).scores for ends in ((0, cut), (cut, 7))]
    looped = run(method, source, inputs, way="loop").scores
    for other in (torch.cat(parts), looped):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-12 * float(source.text.scale))


def test_float32_batches_agree_within_its_rounding():
    source, method = tiny_clip(), small()
    inputs = tiny_inputs(source, 6, method=method)
    native, looped = (run(method, source, inputs, way=way).scores for way in ("native", "loop"))
    torch.testing.assert_close(native, looped, rtol=0, atol=1e-5 * float(source.text.scale))
    assert torch.equal(native, run(method, source, inputs).scores)


def test_the_control_ignores_the_image_and_the_method_does_not(source):
    for control in ("none", "image"):
        method = small(input=control)
        inputs = tiny_inputs(source, 4, method=method)
        other = inputs._replace(images=inputs.images.flip(0) * 0.5)
        same = torch.equal(run(method, source, inputs).scores, run(method, source, other).scores)
        assert same == (control == "none")


def test_the_published_reading_comes_before_the_last_update(source):
    inputs = tiny_inputs(source, 3, method=small())
    later = run(small(iterations=5, read="last"), source, inputs).scores
    assert torch.equal(run(small(iterations=6), source, inputs).scores, later)
    first = small(iterations=1)
    untouched = first.fit(source, {}, inputs, 0).predictions[0]
    assert torch.equal(run(first, source, inputs).scores, source.head(untouched))


def test_the_fit_goes_towards_the_teacher_until_both_predict_alike(source):
    method = small(iterations=600, read="last")
    inputs = tiny_inputs(source, 5, method=method)
    losses = method.fit(source, {}, inputs, 600).losses
    assert (losses[-1] < 1e-3 * losses[0]).all()
    stepped = run(method, source, inputs)
    assert torch.equal(stepped.teacher, source.head(inputs.features))
    torch.testing.assert_close(stepped.teacher, source.logits(inputs.images), rtol=0, atol=1e-9)
    assert torch.equal(stepped.scores.argmax(1), stepped.teacher.argmax(1))


def test_nothing_that_the_step_is_given_is_written_to(source):
    method = small(reference_quirk="all")
    inputs = tiny_inputs(source, 1, method=method)
    state = method.init(source, tiny_task(source, method))
    kept = [tensor.clone() for tensor in (*state.values(), inputs.images, inputs.features, inputs.draws)]
    after = method.adapt(source, state, inputs).state
    tensors = (*state.values(), inputs.images, inputs.features, inputs.draws)
    assert all(torch.equal(a, b) for a, b in zip(kept, tensors, strict=True))
    assert int(after["done"]) == method.iterations
    assert after["first"].abs().sum() > 0


def test_a_unit_target_is_the_feature_at_length_one(source):
    inputs = tiny_inputs(source, 3, method=small())
    scaled = inputs._replace(features=inputs.features / inputs.features.norm(dim=1, keepdim=True))
    found = run(small(target="unit"), source, inputs).scores
    torch.testing.assert_close(found, run(small(), source, scaled).scores, rtol=0, atol=1e-9)


def test_mean_pooling_averages_the_features_of_the_locations():
    student = students.Student(SMALL, 16, "mean")
    weights = torch.randn(2, student.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    found = reference.forward(student, student.unpack(weights), student.patches(images))
    code = students.positional_code((3, 2), 8).double().flatten(1)
    for index in range(2):
        named = {name: part[index] for name, part in student.unpack(weights).items()}
        kernel = named["patch.weight"].view(1, 3, 4, 4)
        column = (
            torch.nn.functional.conv2d(images[index, None], kernel, stride=4).flatten() + named["patch.bias"]
        )
        first = torch.cat([named["fc1.column"], named["fc1.across"], named["fc1.down"]], dim=1)
        each = []
        for location in code.T:
            h = torch.relu(first @ torch.cat([column, location]) + named["fc1.bias"])
            for name in ("fc2", "fc3"):
                h = torch.relu(named[f"{name}.weight"] @ h + named[f"{name}.bias"])
            each.append(named["project.weight"] @ h + named["project.bias"])
        torch.testing.assert_close(found[index], torch.stack(each).mean(0), rtol=1e-10, atol=1e-10)


def test_the_draw_has_the_asked_deviation_and_is_the_same_in_every_precision(source):
    method = Apm(weight_std=0.03)
    double, single = (
        method.draw(model, 2, torch.Generator().manual_seed(4)) for model in (source, tiny_clip())
    )
    assert torch.equal(double, single)
    assert double.shape == (2, method.student(source).size)
    assert float(double.std()) == pytest.approx(0.03, rel=0.02)
    assert abs(float(double.mean())) < 1e-3


def test_an_image_of_another_size_is_brought_to_the_students(source):
    dims = SMALL._replace(image=(4, 4))
    inputs = tiny_inputs(source, 2, method=small(dims=dims))
    flat = inputs._replace(images=torch.full_like(inputs.images, 0.3))
    shrunk = flat._replace(images=flat.images[:, :, :4, :4])
    found = [run(small(dims=dims), source, each).scores for each in (flat, shrunk)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)


def test_the_sizes_have_the_weights_that_their_names_say():
    assert students.Student(students.SIZES["published"], 768).size == 22_032_461
    for name, dims in students.SIZES.items():
        if name.endswith("m"):
            assert round(students.Student(dims, 768).size / 1e6) == int(name[:-1])


def test_an_early_stop_reads_each_image_at_its_own_first_good_pass(source):
    method = small(iterations=40, read="last")
    inputs = tiny_inputs(source, 6, method=method)
    course = method.fit(source, {}, inputs, 40)
    limit = float(course.losses[12].median())
    first = [next((k for k in range(40) if course.losses[k, i] <= limit), 40) for i in range(6)]
    assert len(set(first)) > 2
    expected = source.head(torch.stack([course.predictions[k, i] for i, k in enumerate(first)]))
    stopping = small(iterations=40, read="last", stop_loss=limit)
    assert torch.equal(run(stopping, source, inputs).scores, expected)
    alone = run(stopping, source, inputs, way="loop").scores
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-9)
    everything = float(course.losses.max())
    untouched = small(iterations=40, stop_loss=everything)
    assert torch.equal(run(untouched, source, inputs).scores, source.head(course.predictions[0]))


def test_a_linear_head_reads_the_students_features():
    plain, method = tiny_source(dtype=torch.float64), small(iterations=600, read="last")
    inputs = tiny_inputs(plain, 3, method=method)
    found = run(method, plain, inputs)
    torch.testing.assert_close(found.teacher, plain.logits(inputs.images), rtol=0, atol=1e-10)
    assert torch.equal(found.scores.argmax(1), found.teacher.argmax(1))


def test_a_stride_takes_every_other_row_and_column(source):
    inputs = tiny_inputs(source, 3, method=small())
    dims = SMALL._replace(grid=(5, 4))
    found = run(small(dims=dims, stride=2), source, inputs).scores
    assert not torch.equal(found, run(small(dims=dims), source, inputs).scores)
    student = small(dims=dims, stride=2).student(source)
    whole = students.positional_code((5, 4), 8)
    assert student.grid == (3, 2)
    assert torch.equal(student.table(8, whole), whole[:, ::2, ::2].flatten(1))


def test_the_islands_pool_to_the_prediction_and_their_colours_are_the_images(source):
    method = small(pooling="mean", dims=SMALL._replace(grid=(8, 8), image=(16, 16)))
    inputs = tiny_inputs(source, 2, method=method)
    generator = torch.Generator().manual_seed(0)
    found = method.islands(source, inputs, generator, Colours(updates=300))
    assert found.colours is not None
    pooled = (found.features * found.share).sum((2, 3))
    torch.testing.assert_close(source.head(pooled), run(method, source, inputs).scores, rtol=0, atol=1e-9)
    wanted = torch.nn.functional.interpolate(inputs.images, size=(8, 8), mode="bilinear", antialias=True)
    error = (found.colours - wanted).square().mean((1, 2, 3))
    spread = (wanted - wanted.mean((2, 3), keepdim=True)).square().mean((1, 2, 3))
    assert (error < 0.5 * spread).all()
    bare = small().islands(source, tiny_inputs(source, 2, method=small()), generator)
    assert bare.colours is None
    torch.testing.assert_close(bare.share.sum((2, 3)), torch.ones_like(bare.share[..., 0, 0]))


def test_the_response_to_the_own_image_is_the_prediction(source):
    method = small()
    inputs = tiny_inputs(source, 3, method=method)
    fitted = method.fit(source, {}, inputs, 4)
    own = method.respond(source, fitted.weights, inputs.images)
    torch.testing.assert_close(own, fitted.predictions[-1], rtol=0, atol=1e-12)
    assert not torch.allclose(method.respond(source, fitted.weights, inputs.images.flip(0)), own)


def test_a_fit_that_goes_on_ends_where_an_uninterrupted_one_does(source):
    method = small()
    inputs = tiny_inputs(source, 3, method=method)
    whole, half = method.fit(source, {}, inputs, 6), method.fit(source, {}, inputs, 2)
    rest = method.fit(source, {}, inputs._replace(draws=half.weights), 4, start=half.moments)
    assert torch.equal(rest.weights, whole.weights)
    assert torch.equal(rest.predictions, whole.predictions[2:])
    assert rest.moments.done == 6


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_an_unknown_choice_is_refused(name):
    with pytest.raises(BadInputError, match=f"{name} must be one of"):
        Apm(**{name: "other"})


OUTSIDE = {
    "iterations": [0], "stride": [0], "stop_loss": [-1.0, NAN, INF], "lr": [-1.0, NAN, INF],
    "betas": [(1.0, 1.0), (0.9, NAN), (-0.1, 0.9)], "eps": [-1.0, 0.0, NAN, INF], "weight_decay": [-1.0, NAN],
    "weight_std": [0.0, -1.0, NAN, INF], "lr_every": [-1],
    "dims": [
        (4, 4), SMALL._replace(patch=0), SMALL._replace(grid=(0, 2)), SMALL._replace(grid=(3, 2, 1)),
        SMALL._replace(image=(8, 3)), SMALL._replace(widths=(4, 4)), SMALL._replace(widths=(4, 0, 4)),
        SMALL._replace(heads=-2), SMALL._replace(code=0), SMALL._replace(grid=(1.5, 2)), SMALL._replace(grid=3),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, each in OUTSIDE.items() for value in each]
)
def test_a_value_that_no_fit_could_have_is_refused(name, value):
    with pytest.raises(BadInputError, match=f"{name} must "):
        Apm(**{name: value})


def test_sizes_that_no_student_has_are_refused_and_lists_are_taken(source):
    with pytest.raises(BadInputError, match="no patch larger than the image"):
        students.Student(SMALL._replace(patch=9), 16)
    lists = [list(part) if isinstance(part, tuple) else part for part in SMALL]
    for dims in (lists, lists[:-1]):
        inputs = tiny_inputs(source, 2, method=small())
        assert torch.equal(run(small(dims=dims), source, inputs).scores, run(small(), source, inputs).scores)


@pytest.mark.parametrize("engine", ["reference", "active"])
@pytest.mark.parametrize("products", ["tf32", "bfloat16"])
def test_rounded_products_need_the_fast_engine(products, engine):
    with pytest.raises(BadInputError, match=f"products='{products}' needs engine 'fast', got '{engine}'"):
        Apm(products=products, engine=engine)


def test_a_quirk_that_carries_a_state_is_refused_where_nothing_is_carried():
    for quirk in ("carry_adam", "all"):
        Apm(reference_quirk=quirk).check_protocol("never", 1)
        for protocol in (("image", 1), ("shift", 1), ("batch", 1), ("never", 2)):
            with pytest.raises(BadInputError, match="needs reset 'never' and batch size 1"):
                Apm(reference_quirk=quirk).check_protocol(*protocol)
    for quirk in ("none", "gradient_accumulation", "scaled_accumulation"):
        Apm(reference_quirk=quirk).check_protocol("image", 64)


def test_the_updates_of_a_fit_that_stops_early_are_counted(source):
    method = small()
    inputs = tiny_inputs(source, 1, method=method)
    losses = method.fit(source, {}, inputs, 6).losses[:, 0]
    for index in (0, 3):
        stopping = small(stop_loss=float(losses[index]))
        found, short = stopping.fit(source, {}, inputs, 6), method.fit(source, {}, inputs, index + 1)
        assert found.moments.done == short.moments.done == index + 1
        assert torch.equal(found.weights, short.weights)
    assert small(stop_loss=float(losses[6])).fit(source, {}, inputs, 6).moments.done == 6


def test_groups_that_stop_apart_have_no_moments_in_common(source, monkeypatch):
    method = small()
    inputs = tiny_inputs(source, 2, method=method)
    losses = method.fit(source, {}, inputs, 0).losses[0]
    monkeypatch.setattr(fitting, "AT_ONCE_ON_CPU", method.student(source).size)
    stopping = small(stop_loss=float(losses.min()))
    with pytest.raises(BadInputError, match="after different numbers of updates"):
        stopping.fit(source, {}, inputs, 3)
    assert stopping.fit(source, {}, inputs, 3, keep=False).losses.shape == (4, 2)


@pytest.mark.parametrize("values", [{"stop_loss": 0.1}, {"reference_quirk": "all"}])
def test_islands_of_students_that_are_not_those_read_are_refused(source, values):
    method = small(**values)
    with pytest.raises(BadInputError, match="islands are those of the last update"):
        method.islands(source, tiny_inputs(source, 1, method=method), torch.Generator())


def test_a_unit_target_is_refused_where_the_head_sees_lengths():
    method = small(target="unit")
    with pytest.raises(
        IncompatibleError, match="target='unit' needs scores that ignore the feature's length"
    ):
        method.init(tiny_source(), None)


def test_values_that_do_not_fit_are_refused(source):
    with pytest.raises(IncompatibleError, match="multiples of 4"):
        small(dims=SMALL._replace(code=6)).student(source)
    with pytest.raises(IncompatibleError, match="divide the feature"):
        small(dims=SMALL._replace(heads=5)).student(source)
    method = small(reference_quirk="carry_adam")
    with pytest.raises(BadInputError, match="batch size 1"):
        run(method, source, tiny_inputs(source, 2, method=method), way="batch")
    inputs = tiny_inputs(source, 1, method=small())
    with pytest.raises(BadInputError, match="number of updates"):
        small().fit(source, {}, inputs, -1)
    for preset in Apm.presets.values():
        assert isinstance(Apm(**preset).student(source).size, int)
