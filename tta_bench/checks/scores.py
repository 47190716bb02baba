# SPDX-License-Identifier: Apache-2.0
"""Checks of the scores: their shape and range, and that they do not depend on how images are batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tta_bench.checks.bench import BATCH, LOWER, Bench, benches, both
from tta_bench.checks.core import check, promise, skip_unless
from tta_bench.checks.trees import TOLERANCE, tensors
from tta_bench.method import Method
from tta_bench.steps import Way, slice_inputs


@check("Scores are (N, K), floating, finite, and of the kind that the card says.")
def scores_are_scores(method: Method) -> None:
    """Look at the scores of two steps."""
    for bench in benches(method):
        for scores in bench.steps(bench.init(), range(2))[1]:
            promise(scores.is_floating_point(), f"scores are {scores.dtype}, not floating, {bench.where}")
            _finite(bench, scores)
            _of_kind(bench, scores)


def _finite(bench: Bench, scores: Tensor) -> None:
    promise(bool(torch.isfinite(scores).all()), f"scores are not finite {bench.where}")


def _of_kind(bench: Bench, scores: Tensor) -> None:
    kind = bench.method.card.output
    if kind != "logits":
        promise(bool((scores >= 0).all()), f"{kind} must not be negative, but some are {bench.where}")
    if kind == "probabilities":
        off = float((scores.sum(-1) - 1).abs().max())
        promise(off <= 10 * TOLERANCE[bench.source.dtype], f"probabilities miss a sum of 1 by {off:.1e}")


def _same_as_loop(method: Method, way: Way) -> None:
    for bench in both(method):
        inputs = bench.inputs(per_image=True)
        scores = bench.step(bench.init(), inputs, way).scores
        looped = bench.step(bench.init(), inputs, "loop").scores
        what = "the batch" if way == "native" else "vmap"
        bench.close(scores, looped, f"{what} differs from a loop over the images")


@check("A step under vmap equals a loop over the images.", applies="the card says vmappable")
def vmap_equals_loop(method: Method) -> None:
    """Run four episodes both ways."""
    skip_unless(method.card.vmappable, "the card does not say vmappable")
    _same_as_loop(method, "vmap")


@check("Adapting to a batch equals adapting to each image alone.", applies="the card says independent")
def batch_equals_loop(method: Method) -> None:
    """Run four episodes both ways."""
    skip_unless(method.card.independent, "the card does not say independent")
    _same_as_loop(method, "native")


@check(
    "The order of a batch does not matter where every image is an episode of its own.",
    applies="the card resets for each image",
)
def order_does_not_matter(method: Method) -> None:
    """Run a batch and its reverse."""
    skip_unless(method.card.reset == "image", "the card does not reset for each image")
    for bench in both(method):
        inputs = bench.inputs(per_image=True)
        each = [slice_inputs(inputs, i, i + 1) for i in reversed(range(BATCH))]
        whole = {"source_images": inputs.source_images, "source_labels": inputs.source_labels}
        reverse = pytree.tree_map(_joined, *each)._replace(**whole)
        straight = bench.step(bench.init(), inputs).scores
        turned = bench.step(bench.init(), reverse).scores.flip(0)
        bench.close(turned, straight, "scores of a reversed batch differ")


def _joined(*parts: Tensor | None) -> Tensor | None:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None


@check("A batch of one image works.")
def one_image_works(method: Method) -> None:
    """Take two steps of one image."""
    for bench in benches(method):
        for scores in bench.steps(bench.init(), range(2), n=1)[1]:
            _finite(bench, scores)


@check("A last batch that is smaller than the others works.")
def smaller_last_batch_works(method: Method) -> None:
    """Take a step of four images and one of three."""
    for bench in benches(method):
        state = bench.init()
        for seed, n in enumerate((BATCH, BATCH - 1)):
            stepped = bench.step(state, bench.inputs(n, seed))
            _finite(bench, stepped.scores)
            state = stepped.state


@check("A batch of identical images works, and so does the step after it.")
def identical_images_work(method: Method) -> None:
    """Repeat the first image, with all that belongs to it but the draws, then continue with ordinary images."""
    for bench in benches(method):
        inputs = bench.inputs()
        first = slice_inputs(inputs._replace(draws=None), 0, 1)._asdict()
        per_image = {name: first[name] for name in ("images", "views", "features", "view_features")}
        repeated = {n: None if x is None else torch.cat([x] * BATCH) for n, x in per_image.items()}
        stepped = bench.step(bench.init(), inputs._replace(**repeated))
        _finite(bench, stepped.scores)
        for path, leaf in tensors(stepped.state).items():
            promise(not bool(leaf.isnan().any()), f"{path} of the state is NaN {bench.where}")
        _finite(bench, bench.step(stepped.state, bench.inputs(seed=1)).scores)


@check(
    "With the hyper-parameters that the card calls idle, predictions are those of the source model.",
    applies="card.idle is not None",
)
def idle_is_the_source(method: Method) -> None:
    """Take two steps with those hyper-parameters; in bfloat16 never under vmap, which rounds sums elsewhere."""
    skip_unless(method.card.idle is not None, "card.idle is None: no hyper-parameters switch the method off")
    idle = dataclasses.replace(method, **dict(method.card.idle or ()))  # type: ignore[type-var]
    for bench in benches(idle, precisions=("float32", "float64", LOWER)):
        way: Way = "loop" if bench.way == "vmap" and bench.source.autocast else bench.way
        state = bench.init()
        for seed in range(2):
            inputs = bench.inputs(seed=seed)
            stepped = bench.step(state, inputs, way)
            assert inputs.images is not None
            with torch.no_grad():
                parts = torch.split(inputs.images, 1 if way == "loop" else BATCH)
                expected = torch.cat([bench.source.logits(part) for part in parts])
            _predicts(bench, stepped.scores, expected)
            state = stepped.state


def _predicts(bench: Bench, scores: Tensor, logits: Tensor) -> None:
    kind = bench.method.card.output
    if kind == "votes":
        promise(
            torch.equal(scores.argmax(-1), logits.argmax(-1)), f"the votes are not the source's {bench.where}"
        )
        return
    found = scores if kind == "probabilities" else scores.softmax(-1)
    bench.close(found, logits.softmax(-1), "idle probabilities differ from the source model's")
