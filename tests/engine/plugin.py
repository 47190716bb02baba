# SPDX-License-Identifier: Apache-2.0
"""Methods that are quick, and that do to their process what may happen to it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from tta_bench.method import Adapted, Card, Method


@dataclass(frozen=True)
class Walk(Method):
    """Carry a tensor from step to step that every image changes, and every prediction depends on."""

    pause: float = 0.0
    card: ClassVar[Card] = Card(paper="none", reset="shift")

    def init(self, source, task):
        return {"drift": torch.zeros(source.num_classes), "deep": [torch.zeros((), dtype=torch.int64)]}

    def adapt(self, source, state, inputs):
        time.sleep(self.pause)
        logits = source.logits(inputs.images) + state["drift"]
        drift = state["drift"] * 0.9 + logits.mean(0).sin()
        return Adapted({"drift": drift, "deep": [state["deep"][0] + len(logits)]}, logits)


@dataclass(frozen=True)
class Dice(Method):
    """Move each image's scores by random numbers of its own."""

    pause: float = 0.0
    card: ClassVar[Card] = Card(paper="none", reset="image", independent=True)

    def draw(self, source, n, generator):
        return torch.rand(n, source.num_classes, generator=generator)

    def adapt(self, source, state, inputs):
        time.sleep(self.pause)
        return Adapted(state, source.logits(inputs.images) + 3 * inputs.draws)


@dataclass(frozen=True)
class Dies(Walk):
    """Kill the process in the middle, as long as a file is there; ``once`` removes it first."""

    file: str = ""
    once: bool = True

    def adapt(self, source, state, inputs):
        if state["deep"][0] >= 12 and Path(self.file).exists():
            if self.once:
                Path(self.file).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Hangs(Walk):
    """Never come back from the third step."""

    def adapt(self, source, state, inputs):
        if state["deep"][0] >= 8:
            time.sleep(3600)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Falls(Walk):
    """Take the second node of a Ray cluster down in the middle, once: the process above is its raylet."""

    file: str = ""

    def adapt(self, source, state, inputs):
        second = os.environ.get("TTA_BENCH_TEST_NODE") == "second"
        if second and state["deep"][0] >= 12 and Path(self.file).exists():
            Path(self.file).unlink()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(3600)
        return super().adapt(source, state, inputs)


@dataclass(frozen=True)
class Preempted(Walk):
    """Signal the job of SLURM that the process belongs to, as before its time limit, once."""

    file: str = ""

    def adapt(self, source, state, inputs):
        if state["deep"][0] >= 12 and Path(self.file).exists():
            Path(self.file).unlink()
            os.kill(os.getppid(), signal.SIGUSR2)
            time.sleep(3600)
        return super().adapt(source, state, inputs)
