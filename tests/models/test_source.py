# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import IncompatibleError
from tta_bench.models.classifier import Classifier, check_head
from tta_bench.models.source import SourceModel
from tta_bench.models.text import similarity
from tta_bench.norms import Stats, batch, track
from tta_bench.testing import tiny_clip, tiny_images, tiny_source


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.5),
        )
        model.append(nn.Linear(6, 4))
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
    return model


def source_model(seed=0, **options):
    facts = {"name": "tiny", "kind": "classifier", "class_names": "abcd", "preprocess": Preprocess((8, 8))}
    facts |= {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    return SourceModel(Classifier(network(seed), 4), **{**facts, **options})


def images(n=5, dtype=torch.float32):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_the_normalisation_is_inside():
    source, model, x = source_model(), network().eval(), images()
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(source.logits(x), model((x - mean) / std))


def test_forward_encode_and_head_agree():
    source, x = source_model(), images()
    found = source.forward(x)
    assert torch.equal(source.encode(x), found.features)
    assert torch.equal(source.head(found.features), found.logits)
    torch.testing.assert_close(
        found.features @ source.head_weight().T + source.params["6.bias"], found.logits
    )
    assert (source.dim, source.num_classes, source.image_shape) == (6, 4, (3, 8, 8))


def test_params_are_read_only_detached_and_the_modes_are_off():
    source = source_model()
    with pytest.raises(TypeError):
        source.params["6.bias"] = torch.zeros(4)
    assert not any(value.requires_grad for value in source.params.values())
    assert torch.equal(source.logits(images()), source.logits(images()))  # dropout would differ


@pytest.mark.parametrize("rule", [batch(), track(0.5)])
def test_rules_write_nothing_and_do_not_outlive_their_call(rule):
    source, x = source_model(), images()
    plain, before = source.logits(x), source.weights_sha256
    ruled = source.forward(x, norm=rule)
    assert not torch.allclose(ruled.logits, plain)
    assert torch.equal(source.logits(x), plain)
    assert source_model().weights_sha256 == before
    assert torch.equal(source.buffers["1.running_mean"], network()[1].running_mean)


def test_a_rule_that_fails_leaves_the_source_model_as_it_was():
    source, x = source_model(), images()
    plain = source.logits(x)

    def broken(x, layer):
        raise ValueError(layer.name)

    with pytest.raises(ValueError, match="1"):
        source.logits(x, norm=broken)
    assert torch.equal(source.logits(x), plain)


def test_statistics_come_back_by_tensor_name_and_can_be_given_back():
    source, x = source_model(), images()
    stats = source.forward(x, norm=lambda x, layer: (x, Stats(layer.mean + 1, layer.var * 2))).stats
    assert set(stats) == {"1.running_mean", "1.running_var"}
    torch.testing.assert_close(stats["1.running_mean"], source.buffers["1.running_mean"] + 1)
    model = network().eval()
    model.load_state_dict({**model.state_dict(), **stats})
    torch.testing.assert_close(source.logits(x, stats), model(source.normalise(x)))


def test_gradients_reach_only_the_tensors_given():
    source = source_model()
    affine = {name: value.clone().requires_grad_() for name, value in source.normalisation().items()}
    assert set(affine) == {"1.weight", "1.bias"}
    source.logits(images(), affine, norm=batch()).square().sum().backward()
    assert all(value.grad.any() for value in affine.values())
    assert all(value.grad is None for value in source.params.values())


def test_weights_are_divided_between_encoder_and_head():
    source = source_model()
    head, encoder = source.weights(under="head"), source.weights(under="encoder")
    assert set(head) == {"6.weight", "6.bias"}
    assert {**encoder, **head}.keys() == source.weights().keys() == source.params.keys()
    assert set(source.weights(("bias",), "encoder")) == {"0.bias", "1.bias"}


def test_the_module_is_a_copy_of_its_own_with_the_librarys_layers():
    source, x = source_model(), images()
    plain, module = source.logits(x), source.module()
    torch.testing.assert_close(module(x), plain)
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    module.train()(x)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert torch.equal(source.logits(x), plain)


def test_the_weights_hash_depends_on_values_and_types_only():
    assert source_model().weights_sha256 == source_model(name="other").weights_sha256
    assert source_model().weights_sha256 != source_model(seed=1).weights_sha256
    assert source_model().weights_sha256 != source_model(dtype=torch.float64).weights_sha256


def test_dtype_is_kept():
    source = source_model(dtype=torch.float64)
    assert source.logits(images(dtype=torch.float64)).dtype == torch.float64
    assert {value.dtype for value in source.params.values()} == {torch.float64}


def test_class_lists_that_do_not_fit_are_refused():
    with pytest.raises(IncompatibleError, match="4 outputs but the dataset has 3"):
        Classifier(network(), 3)
    with pytest.raises(IncompatibleError, match="but the model has 4 outputs"):
        Classifier(network(), 2, (1, 4))
    with pytest.raises(IncompatibleError, match="no linear classifier"):
        Classifier(nn.Conv2d(3, 4, 1), 4)


def test_outputs_are_chosen_and_several_for_one_class_give_their_largest():
    whole, x = source_model(), images()
    logits = whole.logits(x)
    net = network()
    net.label_outputs = range(4)
    groups = SourceModel(
        Classifier(net, 2, ((0, 2, 3), 1)),
        name="tiny",
        kind="classifier",
        class_names="ab",
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
        preprocess=Preprocess((8, 8)),
    )
    expected = torch.stack([logits[:, [0, 2, 3]].amax(1), logits[:, 1]], 1)
    torch.testing.assert_close(groups.logits(x), expected)
    rows = whole.head_weight()
    torch.testing.assert_close(groups.head_weight(), torch.stack([rows[[0, 2, 3]].mean(0), rows[1]]))


def test_heads_that_are_not_one_linear_layer_are_found_out():
    check_head(Classifier(network(), 4), (8, 8), "tiny")
    softened = nn.Sequential(network(), nn.Softmax(-1))
    with pytest.raises(IncompatibleError, match="several heads or works on its logits"):
        check_head(Classifier(softened, 4), (8, 8), "tiny")


def test_similarity_is_the_scaled_cosine():
    features, prototypes = torch.randn(5, 7), nn.functional.normalize(torch.randn(3, 7), dim=-1)
    expected = 20 * nn.functional.cosine_similarity(features[:, None], prototypes[None], dim=-1) - 3
    torch.testing.assert_close(
        similarity(features, prototypes, torch.tensor(20.0), torch.tensor(-3.0)), expected
    )


def test_rounded_products_leave_tensors_gradients_and_outputs_in_the_models_type():
    exact, rounded, x = source_model(), source_model(), images()
    rounded.round_products(torch.bfloat16)
    assert rounded.weights_sha256 == exact.weights_sha256
    for call in ("logits", "encode"):
        fine, coarse = getattr(exact, call)(x, norm=batch()), getattr(rounded, call)(x, norm=batch())
        assert coarse.dtype == torch.float32
        assert not torch.equal(coarse, fine)
        torch.testing.assert_close(coarse, fine, rtol=0.05, atol=0.05)
    kept = rounded.forward(x, norm=track()).stats["1.running_mean"]
    assert kept.dtype == torch.float32
    leaf = rounded.params["0.weight"].clone().requires_grad_()
    rounded.logits(x, {"0.weight": leaf}).sum().backward()
    assert leaf.grad.dtype == torch.float32
    module, logits = rounded.module(), rounded.logits(x)
    assert torch.equal(module(x), logits)
    assert not torch.equal(exact.module()(x), logits)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("make", [tiny_clip, tiny_source], ids=["clip", "classifier"])
def test_rounded_products_score_the_same_features_alike_whoever_asks(make):
    source = make()
    source.round_products(torch.bfloat16)
    x = tiny_images(source, 8, 0)
    logits, features = source.logits(x), source.encode(x)
    assert torch.equal(source.head(features), logits)
    if source.text is not None:
        torch.testing.assert_close(torch.func.vmap(source.head)(features[:, None])[:, 0], logits)
        assert torch.equal(source.text.logits(features, source.text.prototypes()), logits)
        assert not torch.equal(logits, logits.bfloat16().float())


def test_the_hash_of_a_model_is_of_its_weights_and_not_of_what_a_processor_makes_of_them():
    source, other = tiny_clip(), tiny_clip()
    before = source.weights_sha256
    prototypes = other.text.prototypes()
    prototypes += 1e-7  # as another processor may compute them
    assert other.weights_sha256 == before
    changed = tiny_clip()
    name, weight = next(iter(changed.text.tensors().items()))
    with torch.no_grad():
        weight.add_(1e-7)
    assert changed.weights_sha256 != before, name
