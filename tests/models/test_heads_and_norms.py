# SPDX-License-Identifier: Apache-2.0
"""Heads that are not ImageNet-1k's, and BatchNorm layers without weights or without statistics."""

import pytest
import torch
from torch import nn

from tta_bench.data.dataset import find_dataset
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import Caution, IncompatibleError
from tta_bench.hyperparameters import create_method
from tta_bench.models import loading
from tta_bench.models.classifier import Classifier
from tta_bench.models.source import SourceModel
from tta_bench.norms import batch
from tta_bench.steps import check_compatible

WITH_INDICES = ("imagenet-a", "imagenet-r", "imagenet-d", "objectnet", "tiny-imagenet-c")


def head(outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, outputs))


@pytest.mark.parametrize("name", WITH_INDICES)
@pytest.mark.parametrize("outputs", [999, 1001, 1008, 11821, 21841, 21843])
def test_a_head_of_another_list_is_refused(name, outputs):
    dataset = find_dataset(name)[0]
    with pytest.raises(
        IncompatibleError, match=f"ImageNet-1k's 1,000, but the model has {outputs:,} outputs"
    ):
        Classifier(head(outputs), len(dataset.class_names), dataset.class_indices)
    Classifier(head(1000), len(dataset.class_names), dataset.class_indices)


def test_a_head_with_a_background_class_may_declare_its_outputs():
    dataset, net = find_dataset("objectnet")[0], head(1001)
    net.label_outputs = range(1, 1001)
    mapped = Classifier(net, len(dataset.class_names), dataset.class_indices)
    logits = torch.randn(4, 1001, generator=torch.Generator().manual_seed(0))
    plain = Classifier(head(1000), len(dataset.class_names), dataset.class_indices)
    assert torch.equal(mapped.choose(logits), plain.choose(logits[:, 1:]))


@pytest.mark.parametrize("declared", [range(5), range(100, 1100), [-1] * 1000])
def test_a_declaration_that_does_not_cover_the_labels_is_refused(declared):
    dataset, net = find_dataset("imagenet-a")[0], head(1001)
    net.label_outputs = declared
    with pytest.raises(IncompatibleError, match="label_outputs must name one of the model's 1,001 outputs"):
        Classifier(net, 200, dataset.class_indices[::-1])
    assert max(dataset.class_indices) < 1000


def source_with(norm):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    return SourceModel(
        Classifier(net, 2), name="n", kind="classifier", class_names=("a", "b"), mean=(0, 0, 0), std=(1, 1, 1),
        preprocess=Preprocess((16, 16), 16),
    )  # fmt: skip


def test_norm_takes_batchnorm_that_has_no_weights():
    source = source_with(nn.BatchNorm2d(8, affine=False))
    check_compatible(create_method("norm", {}), source)
    assert [layer.kind for layer in source.layers].count("batch") == 1
    assert source.normalisation() == {}
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(source.logits(x), source.logits(x, norm=batch()))


def test_batchnorm_without_statistics_is_told():
    source = source_with(nn.BatchNorm2d(8, track_running_stats=False))
    assert len(source.cautions) == 1
    assert "store no statistics" in source.cautions[0]
    assert "1 first" in source.cautions[0]
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(source.logits(x)[:1], source.logits(x[:1])), "the scores do depend on the batch"
    assert source_with(nn.BatchNorm2d(8)).cautions == ()


def test_the_loader_says_it(monkeypatch):
    source = source_with(nn.BatchNorm2d(8, track_running_stats=False))
    monkeypatch.setattr(loading.registry, "load", lambda group, name: lambda request: source)
    with pytest.warns(Caution, match="depend on the batch size"):
        loading.load_model("pocket-bn", ("a", "b"))
