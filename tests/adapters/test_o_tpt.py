# SPDX-License-Identifier: Apache-2.0
import torch
from tta_bench.adapters.o_tpt import OTpt

from tta_bench.losses import correlation_norm

from .view_tuning import VIEWS, adapted, by_hand, class_features

SOME = {"views": VIEWS, "selection": 0.5}


def reflected(text):
    """The published form: each row of the Gram matrix is reflected onto its axis, then compared with the axis."""
    gram = text @ text.T
    eye = torch.eye(len(gram), dtype=gram.dtype)
    distances = []
    for row, axis in zip(gram, eye, strict=True):
        away = row - row.norm() * axis
        unit = away / away.norm()
        image = (eye - 2 * torch.outer(unit, unit)) @ row
        distances.append((image - axis).norm())
    return torch.stack(distances).mean()


def test_the_term_has_the_value_and_gradient_of_the_reflections():
    text = torch.randn(
        6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True
    )
    unit = text / text.norm(dim=1, keepdim=True)
    ours, theirs = correlation_norm(unit), reflected(unit)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    grads = [torch.autograd.grad(value, text, retain_graph=True)[0] for value in (ours, theirs)]
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-9, atol=1e-12)


def test_a_step_is_that_of_an_imperative_loop():
    params, logits, source, inputs = adapted(OTpt(**SOME))
    ctx, expected = by_hand(source, inputs, lambda text: 18.0 * reflected(text))
    torch.testing.assert_close(params["ctx"], ctx, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(logits, expected, rtol=1e-8, atol=1e-8)


def test_classes_become_more_orthogonal():
    plain, _, source, _ = adapted(OTpt(weight=0.0, **SOME))
    more, *_ = adapted(OTpt(weight=18.0, **SOME))
    assert correlation_norm(class_features(source, more)) < correlation_norm(class_features(source, plain))
    assert correlation_norm(torch.eye(3)) == 0
