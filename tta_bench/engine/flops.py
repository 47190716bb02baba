# SPDX-License-Identifier: Apache-2.0
"""What a step costs in multiply-adds, counted by a library and by formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from tta_bench.engine.layer_costs import layers_multiply_adds
from tta_bench.method import Inputs, Method
from tta_bench.models.layers import plain_attention
from tta_bench.models.source import SourceModel
from tta_bench.spec import counter_seed


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

    The library's fused attention for inference hides its products from the counter, so it is off meanwhile.
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
    rows = [PartCost("source model", 1, counted, None if formula is None else float(formula), None)]
    for cost in method.costs(source, inputs):
        rows.append(
            PartCost(
                cost.part,
                cost.times,
                None if cost.work is None else cost.times * multiply_adds(cost.work),
                None if cost.multiply_adds is None else float(cost.times * cost.multiply_adds),
                None if cost.moved_bytes is None else cost.times * cost.moved_bytes / 2**20,
            )
        )
    return rows
