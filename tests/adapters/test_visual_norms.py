# SPDX-License-Identifier: Apache-2.0
"""CLIP methods that tune norm layers on batches: their promises, and their losses against plain loops."""

import math

import pytest
import torch
from torch.nn import functional as F
from tta_bench.adapters._otsu import otsu, separation
from tta_bench.adapters._visual_norms import agreement
from tta_bench.adapters.bat_clip import BatClip
from tta_bench.adapters.clipartt import Clipartt
from tta_bench.adapters.cliptta import Cliptta
from tta_bench.adapters.tent_clip import TentClip
from tta_bench.adapters.watt import Watt

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.losses import entropy
from tta_bench.method import Inputs
from tta_bench.optim import adam, adam_init
from tta_bench.steps import check_compatible
from tta_bench.testing import tiny_clip, tiny_images, tiny_task

TWO = ("a photo of a {}", "art of the {}.")
METHODS = {
    "tent-clip": TentClip(steps=2),
    "clipartt": Clipartt(steps=2),
    "watt": Watt(steps=1, repetitions=2, templates=TWO),
    "watt parallel": Watt(steps=1, repetitions=2, templates=TWO, mode="parallel", predict_with="source"),
    "bat-clip": BatClip(),
    "cliptta": Cliptta(steps=2, shots=2),
    "cliptta open set": Cliptta(steps=2, shots=2, outliers="max_inter_var"),
    "cliptta texts": Cliptta(steps=1, shots=0, tune_text=True, hard=True),
}


@pytest.fixture
def clip():
    return tiny_clip(dtype=torch.float64)


@pytest.fixture
def images(clip):
    return tiny_images(clip, 8, 0)


@pytest.mark.parametrize("name", METHODS)
def test_it_keeps_its_promises(name):
    assert not [result for result in check_method(METHODS[name]) if result.bad]


@pytest.mark.parametrize("name", METHODS)
def test_a_model_without_texts_is_refused(name, source):
    with pytest.raises(IncompatibleError):
        check_compatible(METHODS[name], source)


def start(method, clip, size=8):
    return method.init(clip, tiny_task(clip, method, batch_size=size))


def test_tent_takes_adam_s_steps_on_the_entropy(clip, images):
    method = TentClip(steps=3, lr=0.01)
    params = {name: p.clone() for name, p in clip.normalisation().items()}
    state, losses = adam_init(params), []
    for _ in range(3):
        leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
        loss = entropy(clip.logits(images, leaves)).mean()
        grads = torch.autograd.grad(loss, [*leaves.values()])
        params, state = adam(params, dict(zip(leaves, grads, strict=True)), state, lr=0.01)
        losses.append(loss.detach())
    done = method.tune(clip, start(method, clip), images)
    torch.testing.assert_close(done.losses, torch.stack(losses))
    torch.testing.assert_close(method.predict(clip, done.state, Inputs(images)), clip.logits(images, params))


def test_agreement_is_the_cross_entropy_of_likenesses(clip, images):
    features = clip.encode(images)
    texts = clip.text.prototypes()[clip.logits(images).argmax(1)]
    x = F.normalize(features, dim=1)
    q = (((x @ x.T + texts @ texts.T) / 2) / 0.01).softmax(1)
    z = clip.text.scale * x @ texts.T
    expected = -sum(
        q[j, i] * z[i].log_softmax(0)[j] for i in range(8) for j in range(8)
    ) / 8  # fmt: skip
    torch.testing.assert_close(agreement(clip, features, texts), expected)


def test_captions_name_the_likeliest_classes_in_order(clip, images):
    method = Clipartt(classes=2, conjunction="or")
    top = clip.logits(images).topk(2).indices
    names = [" or ".join(clip.class_names[c] for c in row) for row in top.tolist()]
    expected = F.normalize(clip.text.features([f"a photo of a {name}" for name in names]), dim=1)
    torch.testing.assert_close(method._captions(clip, clip.encode(images)), expected)


def test_one_image_changes_nothing_under_clipartt(clip, images):
    method = Clipartt(steps=1)
    done = method.tune(clip, start(method, clip, 1), images[:1])
    for name, p in done.state["params"].items():
        torch.testing.assert_close(p, clip.params[name])


@pytest.mark.parametrize("mode", ["sequential", "parallel"])
def test_weights_are_averaged_over_the_templates(mode, clip, images):
    method = Watt(steps=1, repetitions=1, templates=TWO, mode=mode, lr=0.01)
    done = method.tune(clip, start(method, clip), images)
    first = start(method, clip)
    one = method._under(clip, first, images, TWO[0], [])
    second = method._under(clip, one if mode == "sequential" else first, images, TWO[1], [])
    for name, p in done.state["params"].items():
        torch.testing.assert_close(p, (one["params"][name] + second["params"][name]) / 2)
    assert done.losses.shape == (2,)


def test_bat_clip_moves_both_towers_by_its_three_terms(clip, images):
    method = BatClip(optimizer="sgd", momentum=0.0, weight_decay=0.0, lr=0.01)
    state = start(method, clip)
    done, logits = method.tune(clip, state, images)
    torch.testing.assert_close(logits, clip.logits(images))
    leaves = {name: p.clone().requires_grad_() for name, p in state["params"].items()}
    features, classes, seen = method.look(clip, leaves, images)
    labels = seen.argmax(1)
    present = sorted(set(labels.tolist()))
    assert len(present) > 1
    means = [features[labels == c].mean(0) for c in present]
    near = sum(mean @ classes[c] for mean, c in zip(means, present, strict=True)) / len(present)
    apart = sum(
        1 - torch.cosine_similarity(means[i], means[j], dim=0)
        for i in range(len(means)) for j in range(len(means)) if i != j
    )  # fmt: skip
    loss = entropy(seen).mean() - near - apart
    torch.testing.assert_close(done.losses[0], loss.detach())
    for name, grad in zip(leaves, torch.autograd.grad(loss, [*leaves.values()]), strict=True):
        torch.testing.assert_close(done.state["params"][name], leaves[name].detach() - 0.01 * grad)
    texts = [name for name in leaves if name.startswith("text.")]
    assert any(not torch.equal(done.state["params"][n], state["params"][n]) for n in texts)


def test_bat_clip_sees_one_class_alone(clip, images):
    method = BatClip()
    done, _ = method.tune(clip, start(method, clip), images[:1].expand(3, -1, -1, -1))
    assert all(p.isfinite().all() for p in done.state["params"].values())


def test_the_memory_keeps_the_most_confident_of_each_class(clip):
    method = Cliptta(steps=1, shots=2)
    state, seen = start(method, clip, 16), []
    for seed in range(3):
        images = tiny_images(clip, 16, seed)
        cosines = F.normalize(clip.encode(images), dim=1) @ clip.head_weight().T
        seen.append(cosines.softmax(1).max(1))
        state = method.started(clip, state, images)
    confidence, labels = (torch.cat(part) for part in zip(*seen, strict=True))
    assert labels.bincount().max() > 2
    for label in labels.unique():
        best = confidence[labels == label].sort(descending=True).values[:2]
        kept = state["confidence"][state["labels"] == label]
        torch.testing.assert_close(kept.sort(descending=True).values, best)


def test_the_memory_is_drawn_evenly(clip, images):
    method = Cliptta(steps=1, shots=3, sample=5)
    state = start(method, clip)
    for seed in range(4):
        state = method.started(clip, state, tiny_images(clip, 16, seed))
    counts = state["labels"].bincount(minlength=5)
    draws = method.draw(clip, 8, torch.Generator().manual_seed(0))
    drawn = method._drawn(clip, state, draws, 0)
    assert len(drawn) == int((counts > 0).sum())
    other = method._drawn(clip, state, method.draw(clip, 8, torch.Generator().manual_seed(5)), 0)
    assert not torch.equal(drawn, other)


def test_otsu_parts_two_groups():
    scores = torch.cat([torch.linspace(-1.1, -0.9, 30), torch.linspace(0.9, 1.1, 10)]).double()
    threshold = otsu(scores)
    assert -0.95 < float(threshold) < 0.9
    candidates = torch.linspace(-1.09, 1.09, 500).double()
    spreads = []
    for cut in candidates:
        low, high = scores[scores <= cut], scores[scores > cut]
        spreads.append(len(low) * len(high) * (low.mean() - high.mean()) ** 2)
    below = scores <= threshold
    best = below.sum() * (~below).sum() * (scores[below].mean() - scores[~below].mean()) ** 2
    assert float(best) == pytest.approx(float(max(spreads)), rel=1e-6)
    assert otsu(torch.ones(4)).isfinite()


@pytest.mark.parametrize("weighted", [False, True])
def test_separation_of_sharp_groups_is_the_distance_of_their_means(weighted):
    scores = torch.tensor([-1.0, -2.0, 3.0, 5.0, 4.0]).double()
    found = separation(scores, torch.tensor(0.0).double(), 1e-3, weighted=weighted)
    assert math.isclose(float(found), -(5.5**2) * (0.6 * 0.4 if weighted else 1), rel_tol=1e-9)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (TentClip, {"steps": 0}), (Clipartt, {"classes": 0}), (Clipartt, {"target": "none"}),
        (Clipartt, {"template": "a photo"}), (Watt, {"repetitions": 0}), (Watt, {"templates": ()}),
        (Watt, {"templates": ("a photo",)}), (Watt, {"mode": "both"}), (BatClip, {"steps": 0}),
        (Cliptta, {"shots": -1}), (Cliptta, {"scale": 0.0}), (Cliptta, {"outliers": "some"}),
        (Cliptta, {"shots": 0, "memory_alone": True}), (Cliptta, {"beta_reg": -1.0}),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(make, values):
    with pytest.raises(BadInputError):
        make(**values)
