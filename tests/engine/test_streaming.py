# SPDX-License-Identifier: Apache-2.0
"""Host memory does not grow with the length of the stream."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import sys
import numpy as np, torch
from dataclasses import dataclass
from typing import ClassVar
from tta_bench.data.dataset import Shift
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import Part, Stream, choose
from tta_bench.engine.cell import CellJob, CellRunner
from tta_bench.engine.meter import peak_rss_mib
from tta_bench.engine.ports import SourceScores
from tta_bench.method import Adapted, Card, Method, Task
from tta_bench.records.store import Store
from tta_bench.testing import tiny_source
sys.path.insert(0, sys.argv[2])
from synthetic import manifest

torch.set_num_threads(1)
COUNT = int(sys.argv[1])


class Ids:
    def __getitem__(self, index):
        return f"val/{index:08d}.png"

    def __len__(self):
        return COUNT


class Images:
    data_hash = "d"
    ids = Ids()
    labels = np.arange(COUNT) % 5
    pixels = torch.randint(0, 256, (500, 3, 8, 8), dtype=torch.uint8)

    def __len__(self):
        return COUNT

    def load(self, positions, preprocess):
        return self.pixels[: len(positions)]


@dataclass(frozen=True)
class Head(Method):
    card: ClassVar[Card] = Card(paper="none", reset="shift")

    def init(self, source, task):
        return {"drift": torch.zeros(5)}

    def adapt(self, source, state, inputs):
        logits = inputs.images.mean((2, 3)) @ torch.ones(3, 5) + state["drift"]
        return Adapted({"drift": state["drift"] * 0.9 + logits.mean(0)}, logits)


images = Images()
stream = Stream([Part(Shift("memory"), images, choose(images, "full", 0))], 500, Preprocess((8, 8)))
store = Store(sys.argv[3]).open(create=True)
writer = store.writer("cell", resume=False)
scores = SourceScores(np.zeros(COUNT, np.int64), np.zeros(COUNT, np.float32))
source = tiny_source(classes=5, size=(3, 8, 8))
job = CellJob(Head(), source, stream, "shift", 0, Task(5, tuple("abcde"), 500), scores, probe_memory=False)
CellRunner(job, writer, lambda images: None).run()
writer.finish(manifest("cell"))
assert store.read("cell", ["position"]).num_rows == COUNT
print(peak_rss_mib())
"""


@pytest.mark.slow
def test_host_memory_does_not_grow_with_the_stream(tmp_path):
    def peak(count):
        arguments = [str(count), str(Path(__file__).parents[1] / "records"), str(tmp_path / str(count))]
        # pools that hold on to what was freed would hide how much is in use
        pools = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}
        environment = os.environ | pools | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
        )
        return float(done.stdout)

    short, long = peak(20_000), peak(200_000)
    print(short, long)
    assert long <= 1.05 * short
