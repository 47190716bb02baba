# SPDX-License-Identifier: Apache-2.0
"""Views of one image against the published recipe, and TPT's step against a hand-written loop.

Run it on one thread: ``OMP_NUM_THREADS=1 pytest benchmarks/bench_views.py``.
"""

import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision import transforms

from tta_bench import registry
from tta_bench.data.images.views import make_views, view_numbers
from tta_bench.data.images.views_cpu import DISTORT
from tta_bench.losses import marginal_entropy, most_confident
from tta_bench.method import Inputs, Task
from tta_bench.models.loading import load_model

SIDE, VIEWS, ROUNDS = 224, 64, 9
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NAMES = tuple(f"class {index}" for index in range(20))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def median_ratio(ours, theirs):
    """Return the median ratio of the processor times of two functions, called in turn; other load does not count."""
    ratios = []
    for _ in range(ROUNDS + 1):
        times = []
        for work in (ours, theirs):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
        ratios.append(times[0] / times[1])
    return sorted(ratios[1:])[ROUNDS // 2]  # the first round warms up


def photo():
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    grain = np.random.default_rng(0).normal(0, 20, (SIDE, SIDE, 3))
    waves = np.stack([np.sin(x / 9), np.cos(y / 7), np.sin((x + y) / 11)], -1)
    return Image.fromarray(np.clip(128 + 80 * waves + grain, 0, 255).astype(np.uint8))


crop_and_flip = transforms.Compose([transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip()])
to_input = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def recipe_crops(picture):
    """The published recipe less its normalisation, which our models do themselves."""
    tensor = transforms.ToTensor()
    return torch.stack([tensor(picture), *(tensor(crop_and_flip(picture)) for _ in range(VIEWS - 1))])


def recipe_mixes(picture, rng):
    """The published recipe: a crop mixed, after its normalisation, with three chains of distortions."""
    views = [to_input(picture)]
    for _ in range(VIEWS - 1):
        crop = crop_and_flip(picture)
        weights, share = rng.dirichlet([1.0] * 3), rng.beta(1.0, 1.0)
        mix = torch.zeros(3, SIDE, SIDE)
        for weight in weights:
            chained = crop.copy()
            for _ in range(rng.integers(1, 4)):
                operation, level = rng.integers(len(DISTORT)), rng.uniform(0.1, 1.0)
                chained = DISTORT[operation](chained, level, 1 if rng.random() < 0.5 else -1)
            mix += float(weight) * to_input(chained)
        views.append(share * to_input(crop) + (1 - share) * mix)
    return torch.stack(views)


def ours(picture, kind):
    generator = torch.Generator().manual_seed(0)
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    return lambda: make_views(image, view_numbers(kind, VIEWS, generator)[None], kind)


def test_crops(goal):
    picture = photo()
    ratio = median_ratio(lambda: recipe_crops(picture), ours(picture, "crop"))
    goal("views_crop_recipe_over_ours", ratio, 3.0, at_most=False)


def test_mixes(goal):
    picture, rng = photo(), np.random.default_rng(0)
    ratio = median_ratio(lambda: recipe_mixes(picture, rng), ours(picture, "augmix"))
    goal("views_augmix_recipe_over_ours", ratio, 1.5, at_most=False)


def test_tpt_step(goal):
    """TPT's step and prediction on given view features: text forward and backward, then text forward."""
    source = load_model("open_clip/ViT-B-32-quickgelu", NAMES, pretrained=False)
    method = registry.load("methods", "tpt")()
    state = method.init(source, Task(len(NAMES), NAMES, 1))
    features = torch.randn(1, VIEWS, source.dim, generator=torch.Generator().manual_seed(0))
    inputs = Inputs(images=None, features=features[:, 0], view_features=features)
    context = source.text.context()

    def library():
        after = method.adapt(source, state, inputs)
        with torch.no_grad():
            return method.predict(source, after.state, inputs)

    def by_hand():
        ctx = context.ctx.clone().requires_grad_()
        optimizer = torch.optim.AdamW([ctx], lr=5e-3, weight_decay=0.01)
        x = F.normalize(features[0], dim=-1)
        logits = source.text.scale * x @ F.normalize(context.encode(ctx), dim=-1).T
        loss = marginal_entropy(logits[most_confident(logits.detach(), 0.1)])
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            return source.text.scale * x[:1] @ F.normalize(context.encode(ctx), dim=-1).T

    torch.testing.assert_close(library(), by_hand(), rtol=1e-3, atol=1e-2)
    goal("tpt_step_over_loop", median_ratio(library, by_hand), 1.05)
