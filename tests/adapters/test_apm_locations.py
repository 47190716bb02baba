# SPDX-License-Identifier: Apache-2.0
"""APM's targets by location and by level, against plain loops of torch."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from tta_bench.adapters.apm import _reference as reference
from tta_bench.adapters.apm.method import Apm

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.models.loading import load_model

DIMS = ((8, 8), 4, (3, 4), 8, (6, 5, 7))


def setting(engine="reference", count=2, hold=0, **values):
    method = Apm(dims=DIMS, lr=0.01, engine=engine, **values)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64)
    targets = torch.randn(count, 3, 4, 4, generator=generator, dtype=torch.float64)
    targets[:, :, :hold] = torch.nan
    weights = 0.3 * torch.randn(
        count, method.location_student(targets).size, generator=generator, dtype=torch.float64
    )
    return method, images, targets, weights


def plain_loop(method, images, targets, weights, updates):
    """Fit every location by a plain torch loop and return its course of losses and outputs."""
    student = method.location_student(targets)
    patches = method._patches(student, images)
    losses, outputs, last = [], [], []
    for i in range(len(images)):
        row = weights[i : i + 1].clone().requires_grad_()
        optimizer = torch.optim.Adam([row], lr=method.lr, betas=method.betas, eps=method.eps)
        wanted = targets[i].flatten(0, 1).T
        kept = ~wanted[0].isnan()
        course = []
        for step in range(updates + 1):
            out = reference.locations(student, student.unpack(row), patches[i : i + 1])[0]
            loss = F.mse_loss(out[:, kept], wanted[:, kept])
            course.append((loss.detach(), out.detach()))
            if step < updates:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        losses.append(torch.stack([one for one, _ in course]))
        outputs.append(torch.stack([out for _, out in course]))
        last.append(row.detach()[0])
    return torch.stack(losses, 1), torch.stack(outputs, 1), torch.stack(last)


@pytest.mark.parametrize("engine", ["reference", "fast"])
@pytest.mark.parametrize("hold", [0, 1])
def test_targets_of_locations_equal_a_plain_loop(engine, hold):
    method, images, targets, weights = setting(engine, hold=hold)
    course = method.fit_locations(images, targets, weights, 6)
    losses, outputs, last = plain_loop(method, images, targets, weights, 6)
    torch.testing.assert_close(course.losses, losses, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(course.predictions, outputs, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(course.weights, last, rtol=1e-10, atol=1e-10)


def test_a_fit_of_locations_continues_from_its_moments():
    method, images, targets, weights = setting("fast")
    whole = method.fit_locations(images, targets, weights, 5)
    half = method.fit_locations(images, targets, weights, 2)
    rest = method.fit_locations(images, targets, half.weights, 3, start=half.moments)
    torch.testing.assert_close(rest.weights, whole.weights, rtol=1e-12, atol=1e-12)


def test_an_engine_that_takes_one_target_per_image_is_refused_by_name():
    method, images, targets, weights = setting("active")
    with pytest.raises(BadInputError, match="engine 'active'"):
        method.fit_locations(images, targets, weights, 1)


@settings(max_examples=25)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_a_location_gives_the_same_whichever_others_are_read_with_it(order, chunk):
    method, images, targets, weights = setting(count=1)
    student = method.location_student(targets)
    named, patches = student.unpack(weights), method._patches(student, images)
    whole = reference.locations(student, named, patches)
    places = torch.tensor(order)
    parts = [reference.locations(student, named, patches, part) for part in places.split(chunk)]
    torch.testing.assert_close(torch.cat(parts, -1), whole[..., places], rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def teacher():
    return load_model("timm/test_vit", ("a", "b", "c"), pretrained=False, precision="float64")


def test_the_last_level_is_the_teachers_feature_and_the_default_is_byte_equal(teacher):
    x = torch.rand(2, *teacher.image_shape, dtype=torch.float64)
    count = len(teacher.transformer.norms)
    assert torch.equal(teacher.encode_level(x, count - 1), teacher.encode(x))
    assert torch.equal(teacher.encode_level(x, -1), teacher.encode(x))


def test_a_level_is_its_class_token_through_the_final_norm(teacher):
    x = torch.rand(2, *teacher.image_shape, dtype=torch.float64)
    net = timm.create_model("test_vit", num_classes=3).double().eval()
    net.load_state_dict({**teacher.params, **teacher.buffers})
    kept = []
    handle = net.blocks[0].register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.no_grad():
        net(teacher.normalise(x))
        expected = net.forward_head(net.norm(kept[0]), pre_logits=True)
    handle.remove()
    torch.testing.assert_close(teacher.encode_level(x, 0), expected, rtol=1e-10, atol=1e-10)


def test_levels_that_are_not_there_are_refused(teacher):
    x = torch.rand(1, *teacher.image_shape, dtype=torch.float64)
    with pytest.raises(BadInputError, match="has layers 0 to"):
        teacher.encode_level(x, 99)
    tower = load_model("pocket-clip", ("ball", "star"))
    with pytest.raises(IncompatibleError, match="class token"):
        tower.encode_level(torch.rand(1, 3, 32, 32), 0)
