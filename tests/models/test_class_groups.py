# SPDX-License-Identifier: Apache-2.0
"""Classes that several outputs of a model stand for, as ObjectNet's do for ImageNet classifiers."""

import pytest
import torch
from torch import nn

from tta_bench.errors import IncompatibleError
from tta_bench.models.classifier import Classifier


def network(outputs=1000):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, outputs)).double()


def test_the_largest_of_a_classes_outputs_counts():
    model = network()
    grouped = Classifier(model, 3, (4, (0, 7, 2), (9, 1)))
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    own = model(x)
    expected = torch.stack([own[:, 4], own[:, [0, 7, 2]].max(1).values, own[:, [9, 1]].max(1).values], dim=1)
    assert torch.equal(grouped.head(grouped.encode(x)[0]), expected)


def test_gradients_are_those_of_the_largest_output():
    features = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    model = network()
    grouped = Classifier(model, 2, ((3, 5), 8))
    (gradient,) = torch.autograd.grad(grouped.head(features)[:, 0].sum(), features)
    weight = model[-1].weight
    best = (features @ weight.T + model[-1].bias)[:, [3, 5]].argmax(1)
    assert torch.allclose(gradient, weight[torch.tensor([3, 5])[best]])


def test_prototypes_of_a_group_are_its_mean():
    model = network()
    rows = Classifier(model, 3, (4, (0, 7, 2), (9, 1))).head_weight()
    weight = model[-1].weight
    assert torch.allclose(rows[0], weight[4])
    assert torch.allclose(rows[1], weight[[0, 7, 2]].mean(0))
    assert torch.allclose(rows[2], weight[[9, 1]].mean(0))


def test_a_model_of_just_these_classes_is_taken_whole():
    model = network(3)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    taken = Classifier(model, 3, (4, 7, 9))
    assert torch.equal(taken.head(taken.encode(x)[0]), model(x))
    with pytest.raises(IncompatibleError, match="but the model has 5 outputs"):
        Classifier(network(5), 3, (4, (7, 6), 9))
