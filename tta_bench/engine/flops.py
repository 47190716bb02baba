# SPDX-License-Identifier: Apache-2.0
"""Multiply-adds of a step, counted by a library and by formulas."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from tta_bench.engine.layer_costs import layers_multiply_adds
from tta_bench.method import Inputs, Method
from tta_bench.models.layers import plain_attention
from tta_bench.models.source import SourceModel
from tta_bench.spec import counter_seed

AGREE = 0.02
"""By how much the count and a formula, which leaves small terms out, may differ."""


class PartCost(NamedTuple):
    """The cost of one part of adapting to one image.

    Attributes:
        part: Its name.
        times: How often it runs for one image.
        counted: Multiply-adds of all runs, products alone, as the library counts them; None where there is nothing
            to count.
        formula: The same by formula: the source model's from its layers, a part's from the method; None where it has
            none.
        moved_mib: MiB that all runs move through memory, where the method says so.
    """

    part: str
    times: int
    counted: float | None
    formula: float | None
    moved_mib: float | None


def multiply_adds(work: Callable[[], object]) -> float:
    """Return the multiply-adds of matrix products and convolutions in some work: half the library's operations.

    Fused attention hides its products from the counter: that for inference in every version of torch, and the CPU's
    kernel of `scaled_dot_product_attention` in some. So attention runs as plain matrix products meanwhile.
    """
    with plain_attention(), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / 2


def step_costs(method: Method, source: SourceModel, seed: int = 0) -> list[PartCost]:
    """Return the cost of the source model and of the method's parts for one random image.

    Args:
        method: The method; one that names no parts of a step gives the row of the source model alone.
        source: The source model.
        seed: Of the image and of the method's draws.
    """
    generator = torch.Generator().manual_seed(counter_seed("flops", seed))
    image = torch.rand(1, *source.image_shape, generator=generator).to(source.device, source.dtype)
    device = source.device if method.card.draw_device == "device" else torch.device("cpu")
    drawn = method.draw(source, 1, torch.Generator(device).manual_seed(counter_seed("flops", seed)))
    with torch.no_grad():
        counted = multiply_adds(lambda: source.encode(image))
        formula = layers_multiply_adds(lambda: source.encode(image))
        inputs = Inputs(images=image, features=source.encode(image), draws=drawn)
    rows = [_checked(PartCost("source model", 1, counted, None if formula is None else float(formula), None))]
    for cost in method.costs(source, inputs):
        rows.append(
            _checked(
                PartCost(
                    cost.part,
                    cost.times,
                    None if cost.work is None else cost.times * multiply_adds(cost.work),
                    None if cost.multiply_adds is None else float(cost.times * cost.multiply_adds),
                    None if cost.moved_bytes is None else cost.times * cost.moved_bytes / 2**20,
                )
            )
        )
    return rows


def _checked(cost: PartCost) -> PartCost:
    """Return the cost; warn where a formula says that this version of torch hides operations from the counter."""
    counted, formula = cost.counted, cost.formula
    if counted is not None and formula and abs(counted / formula - 1) > AGREE:
        warnings.warn(
            f"torch {torch.__version__} counts {counted:.4g} multiply-adds for the {cost.part}, and by its layers' "
            f"sizes they are {formula:.4g}; trust the formula, and report the versions",
            stacklevel=3,
        )
    return cost
