# SPDX-License-Identifier: Apache-2.0
"""Checks that a method is a pure function: it writes to nothing, stores nothing and repeats itself."""

from __future__ import annotations

from typing import Any

import torch

from tta_bench.checks.bench import Bench, benches
from tta_bench.checks.core import check, promise, skip_unless
from tta_bench.checks.guard import seeded
from tta_bench.checks.trees import difference, snapshot, tensors
from tta_bench.method import Inputs, Method
from tta_bench.models.source import SourceModel


@check("init gives the same state every time.")
def init_is_deterministic(method: Method) -> None:
    """Call it under two states of the global random generators."""
    for bench in benches(method):
        with seeded(1):
            first = bench.init()
        with seeded(2):
            second = bench.again().init()
        change = difference(first, second)
        promise(not change, f"{change} between two calls of init {bench.where}")


@check("init, adapt and predict write to neither the source model, the state nor the inputs.")
def adapt_writes_to_nothing(method: Method) -> None:
    """Compare all of them before and after."""
    for bench in benches(method):
        model = snapshot(_all_of(bench.source))
        state, inputs = bench.adapted(1), bench.episode(seed=7)
        before = snapshot({"state": state, "inputs": inputs})
        adapted = bench.adapt(state, inputs)
        if adapted.logits is None:
            bench.method.predict(bench.source, adapted.state, inputs)
        change = difference(before, {"state": state, "inputs": inputs})
        promise(not change, f"{change} after a step {bench.where}; clone before writing")
        change = difference(model, _all_of(bench.source))
        promise(not change, f"the source model's {change} after a step {bench.where}")


def _all_of(source: SourceModel) -> dict[str, Any]:
    """Return every tensor of a source model, and of its reward model."""
    return {
        "params": dict(source.params),
        "buffers": dict(source.buffers),
        "normalisation": (source.mean, source.std),
        "head": source.head_weight(),
        "text": () if source.text is None else (source.text.scale, source.text.prototypes()),
        "reward": () if source.reward is None else _all_of(source.reward),
    }


@check("Nothing is stored on the method, neither on the instance nor on its class.")
def nothing_is_stored(method: Method) -> None:
    """Compare the attributes of both before and after two steps."""
    for bench in benches(method):
        before = _attributes(method)
        bench.steps(bench.init(), range(2))
        after = _attributes(method)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        promise(not changed, f"{', '.join(changed)} changed during two steps; carry it in the state")


def _attributes(method: Method) -> dict[str, Any]:
    """Return attributes of instance and classes: plain containers by value, everything else by identity."""
    found = {f"self.{name}": _frozen(value) for name, value in vars(method).items()}
    for cls in type(method).__mro__:
        if issubclass(cls, Method):
            found |= {f"{cls.__name__}.{n}": _frozen(v) for n, v in vars(cls).items() if n != "_abc_impl"}
    return found


def _frozen(value: Any) -> Any:
    if tensors(value):
        return {path: (id(tensor), tensor._version) for path, tensor in tensors(value).items()}
    return repr(value) if isinstance(value, dict | list | set) else id(value)


@check("predict gives the same scores when it is asked twice.", applies="adapt gives no scores itself")
def predict_repeats(method: Method) -> None:
    """Ask twice for one batch."""
    for bench in benches(method):
        state, inputs = bench.init(), bench.episode()
        adapted = bench.adapt(state, inputs)
        skip_unless(adapted.logits is None, "the step predicts itself")
        first, second = (bench.method.predict(bench.source, adapted.state, inputs) for _ in range(2))
        promise(torch.equal(first, second), f"two calls of predict differ {bench.where}")


@check("A stream that is played again gives the same scores and state, bit for bit.")
def replay_is_equal(method: Method) -> None:
    """Play three batches twice, on copies that share nothing."""
    for bench in benches(method):
        with seeded(1):
            first = bench.steps(bench.init(), range(3))
        again = bench.again()
        with seeded(2):
            second = again.steps(again.init(), range(3))
        change = difference(first, second)
        promise(not change, f"{change} in the second play {bench.where}; use no randomness but draw's")


@check("The initial state gives a fresh start at any time.")
def reset_is_fresh(method: Method) -> None:
    """Return to the initial state after two batches, and compare with a method that never saw them."""
    for bench in benches(method):
        initial = bench.init()
        bench.steps(initial, range(2))
        kept = bench.steps(initial, range(5, 7))
        new = bench.again()
        change = difference(kept, new.steps(new.init(), range(5, 7)))
        promise(not change, f"{change} after a reset {bench.where}; something outside the state remembers")


@check("The method works when it is handed only what its card asks for, and more changes nothing.")
def needs_are_honoured(method: Method) -> None:
    """Take a step with what the card asks for, and one with everything that any card can ask for."""
    for bench in benches(method):
        given = bench.inputs()
        bare = given._replace(images=None) if method.card.inputs == "features" else given
        scores = bench.step(bench.init(), bare).scores
        full = bench.step(bench.init(), _everything(bench, given)).scores
        promise(
            torch.equal(scores, full), f"inputs that the card does not ask for change scores {bench.where}"
        )


def _everything(bench: Bench, inputs: Inputs) -> Inputs:
    """Return the inputs with all that is not there filled in."""
    assert inputs.images is not None
    images = inputs.images
    views = torch.stack([images, images.flip(-1)], 1) if inputs.views is None else inputs.views
    with torch.no_grad():
        features = bench.source.encode(images)
        view_features = bench.source.encode(views.flatten(0, 1)).reshape(*views.shape[:2], -1)
    return inputs._replace(
        views=views,
        features=features if inputs.features is None else inputs.features,
        view_features=view_features if inputs.view_features is None else inputs.view_features,
        source_images=images if inputs.source_images is None else inputs.source_images,
        source_labels=torch.zeros(len(images), dtype=torch.int64)
        if inputs.source_labels is None
        else inputs.source_labels,
    )
