# SPDX-License-Identifier: Apache-2.0
"""What foreign code does wrong ends with its own cell: nothing leaks into the cells after it."""

from dataclasses import dataclass

import pytest
import torch

from tta_bench.method import Adapted

from . import fakes
from .fakes import cell, run


@dataclass(frozen=True)
class Optimised(fakes.Same):
    """Run an optimiser on aliases of the source model's own tensors."""

    def adapt(self, source, state, inputs):
        params = {name: value.detach().requires_grad_() for name, value in source.normalisation().items()}
        logits = source.logits(inputs.images, params)
        optimiser = torch.optim.SGD(list(params.values()), lr=10.0)
        logits.square().sum().backward()
        optimiser.step()
        return Adapted(state, logits.detach())


@dataclass(frozen=True)
class Silently(fakes.Same):
    """Write where no version counter counts."""

    def adapt(self, source, state, inputs):
        next(iter(source.params.values())).data.mul_(0.5)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Raising(fakes.Same):
    """Write to the mean, then raise."""

    def init(self, source, task):
        source.mean.data.add_(1)
        raise RuntimeError("broke")


@dataclass(frozen=True)
class Noting(fakes.Same):
    """Write while it describes itself."""

    def notes(self, source):
        next(iter(source.params.values())).detach().zero_()
        return {}


@pytest.mark.parametrize("bad", [Optimised(), Silently(), Raising(), Noting()])
def test_a_method_that_writes_to_the_source_model_fails_and_the_next_cell_has_a_fresh_one(bad):
    good = cell(fakes.Same(), name="good")
    clean, ended, _ = run([good])
    store, again, reporter = run([cell(bad, name="bad"), good])
    assert [one.status for one in again] == ["failed", "complete"]
    assert again[1].cell == ended[0].cell
    if not isinstance(bad, Raising):
        assert "must leave the source model as it is" in reporter.ended[0][2]
    columns = [one.writers[ended[0].cell].column("confidence") for one in (clean, store)]
    assert columns[0] == columns[1]
