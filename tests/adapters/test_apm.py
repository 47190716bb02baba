# SPDX-License-Identifier: Apache-2.0
"""APM: students that do not see each other, the control without the image, and what is read and recorded."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tta_bench.adapters import _apm_student as students
from tta_bench.adapters.apm import Apm

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.steps import slice_inputs, step
from tta_bench.testing import tiny_clip, tiny_inputs, tiny_task

SMALL = students.Dims((8, 12), 4, (3, 2), 8, (10, 8, 6))


def run(method, source, inputs, way="native"):
    return step(method, source, method.init(source, tiny_task(source, method)), inputs, way=way)


def small(**values):
    return Apm(**{"dims": SMALL, "iterations": 6, "lr": 0.01, "weight_std": 0.2, **values})


@pytest.fixture(scope="module")
def source():
    return tiny_clip(dtype=torch.float64)


@settings(max_examples=12, deadline=None)
@given(cut=st.integers(1, 6), control=st.sampled_from(["image", "none"]), per=st.integers(1, 4))
def test_an_images_result_does_not_depend_on_the_others(cut, control, per):
    source, method = tiny_clip(dtype=torch.float64), small(input=control)
    inputs = tiny_inputs(source, 7, method=method, seed=cut)
    whole = run(method, source, inputs).scores
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(students, "AT_ONCE_ON_CPU", per * method.student(source).size)
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
    found = student.forward(student.unpack(weights), student.patches(images))
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


def test_the_published_size_has_the_published_number_of_weights():
    assert students.Student(students.SIZES["published"], 768).size == 22_032_461


@pytest.mark.parametrize("name", ["size", "read", "input", "pooling", "target", "reference_quirk"])
def test_an_unknown_choice_is_refused(name):
    with pytest.raises(BadInputError, match=f"{name} must be one of"):
        Apm(**{name: "other"})


def test_values_that_do_not_fit_are_refused(source):
    with pytest.raises(BadInputError, match="iterations must be"):
        Apm(iterations=0)
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
