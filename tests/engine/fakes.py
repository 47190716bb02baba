# SPDX-License-Identifier: Apache-2.0
"""An in-memory dataset, a store of lists a few methods, and short ways to plan and run them."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch

from tta_bench.data.dataset import Dataset, Shift
from tta_bench.engine.live import Entry, Live
from tta_bench.engine.objects import Objects
from tta_bench.engine.session import Session
from tta_bench.hyperparameters import as_dict, source_hash
from tta_bench.method import Adapted, Card, Method
from tta_bench.spec import Cell, Manifest

FOG, SNOW = Shift("noise", "fog", 5), Shift("noise", "snow", 5)
CLASSES = ("ant", "bee", "cat", "dog", "elk")


class Noise:
    """Random images that depend on their position alone."""

    def __init__(self, shift, count=37, size=(16, 16)):
        self.ids = [f"noise/{i}" for i in range(count)]
        self.labels = np.arange(count) * 7 % len(CLASSES)
        self.data_hash = f"noise {shift} {count}"
        generator = torch.Generator().manual_seed(len(str(shift)))
        self.pixels = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=generator)

    def __len__(self):
        return len(self.ids)

    def load(self, positions, preprocess):
        return preprocess.batch(self.pixels[list(positions)])


NOISE = Dataset(
    name="noise",
    title="noise",
    class_names=CLASSES,
    open=lambda opening: Noise(opening.shift),
    corruptions=("fog", "snow"),
    default_subset="full",
    default_batch=8,
)
LABELLED = replace(NOISE, source_split=lambda: Noise("source", count=60))


@dataclass(frozen=True)
class Same(Method):
    """Predict what the source does."""

    card: ClassVar[Card] = Card(paper="none", reset="image", independent=True, idle=())

    def adapt(self, source, state, inputs):
        return Adapted(state, source.logits(inputs.images))


@dataclass(frozen=True)
class Counter(Method):
    """Count the images seen since the last reset, and vote for that class."""

    card: ClassVar[Card] = Card(paper="none", reset="shift")

    def init(self, source, task):
        return {"seen": torch.zeros((), dtype=torch.int64)}

    def adapt(self, source, state, inputs):
        return Adapted({"seen": state["seen"] + len(inputs.images)})

    def predict(self, source, state, inputs):
        chosen = (state["seen"] - 1) % source.num_classes
        return torch.nn.functional.one_hot(chosen.repeat(len(inputs.images)), source.num_classes).to(
            source.dtype
        )


@dataclass(frozen=True)
class Drawn(Method):
    """Predict by random numbers alone."""

    card: ClassVar[Card] = Card(paper="none", reset="image", independent=True)

    def draw(self, source, n, generator):
        return torch.rand(n, source.num_classes, generator=generator)

    def adapt(self, source, state, inputs):
        return Adapted(state, inputs.draws.to(source.dtype))


@dataclass(frozen=True)
class Faulty(Method):
    """Fail in the middle of a stream."""

    after: int = 2
    value: str = "raise"
    card: ClassVar[Card] = Card(paper="none", reset="shift")

    def init(self, source, task):
        return {"steps": torch.zeros((), dtype=torch.int64)}

    def adapt(self, source, state, inputs):
        steps = state["steps"] + 1
        logits = source.logits(inputs.images)
        if steps > self.after:
            if self.value == "raise":
                raise RuntimeError("the plug-in broke")
            logits = logits * float(self.value)
        return Adapted({"steps": steps}, logits)


@dataclass(frozen=True)
class Replay(Method):
    """Predict the mean of the replay batch, whatever the image."""

    card: ClassVar[Card] = Card(
        paper="none", reset="image", independent=True, needs=frozenset({"source_replay", "source_images"})
    )

    def adapt(self, source, state, inputs):
        logits = source.logits(inputs.source_images).mean(0, keepdim=True)
        return Adapted(state, logits.expand(len(inputs.images), -1))


@dataclass
class ListWriter:
    """Rows of one cell in a list of batches; may pretend that the process is killed."""

    batches: list = field(default_factory=list)
    die_after: int | None = None

    def append(self, columns):
        if self.die_after is not None and len(self.batches) >= self.die_after:
            raise KeyboardInterrupt
        self.batches.append(dict(columns))

    def keep_state(self, dump):
        pass

    def close(self):
        pass

    def column(self, name):
        found = []
        for batch in self.batches:
            value = batch[name]
            rows = len(batch["image_id"])
            found.extend(value if isinstance(value, list | np.ndarray) else [value] * rows)
        return found


@dataclass
class ListStore:
    """Cells in dictionaries; satisfies the engine's port."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    writers: dict[str, ListWriter] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    die_after: int | None = None

    def plan(self, cells):
        """Plans are not kept."""

    def rows_done(self, cell, first=0):
        return sum(len(batch["image_id"]) for batch in self.writers[cell].batches)

    def state(self, cell):
        return None

    def begin(self, manifest, *, rows, first=0):
        old = self.writers.get(manifest.id)
        batches = old.batches if rows and old else []
        self.writers[manifest.id] = ListWriter(batches, self.die_after)
        self.manifests[manifest.id] = manifest
        return self.writers[manifest.id]

    def manifest(self, cell):
        return self.manifests.get(cell)

    def note(self, manifest):
        self.manifests[manifest.id] = manifest

    def finish(self, writer, manifest):
        self.manifests[manifest.id] = manifest

    def scores(self, key):
        return self.kept.get(key)

    def put_scores(self, key, scores):
        assert key not in self.kept, "source scores are computed once"
        self.kept[key] = scores


@dataclass
class Silent:
    """A reporter that remembers."""

    ended: list = field(default_factory=list)
    images: int = 0
    prepared: list = field(default_factory=list)

    def cell_started(self, label, done, total):
        pass

    def preparing(self, method, done, total):
        self.prepared.append((method, done, total))

    def advanced(self, images):
        self.images += images

    def cell_ended(self, label, status, detail=""):
        self.ended.append((label, status, detail))


LIVE = Live()


def cell(method, shifts=(FOG,), *, batch_size=8, seed=0, reset=None, name="fake", dataset=NOISE, **changes):
    """A cell whose method and dataset are objects of this process."""
    hashes = {"method": repr(method), "dataset": f"{dataset.name} {id(dataset)}"}
    for kind, value in (("method", method), ("dataset", dataset)):
        LIVE.entries[kind, hashes[kind]] = Entry(name, value, hashes[kind])
    facts = {
        "method": name,
        "hyperparameters": as_dict(method),
        "method_hash": source_hash(type(method)),
        "model": "tiny",
        "dataset": dataset.name,
        "shifts": tuple(map(str, shifts)),
        "subset": "full",
        "batch_size": batch_size,
        "reset": reset or method.card.reset,
        "seed": seed,
        "scenario": "iid" if len(shifts) == 1 else "sequence",
        "in_process": hashes,
    }
    return Cell(**facts | changes)


def run(cells, store=None, *, memory=False, **options):
    store = store or ListStore()
    reporter = Silent()
    ended = Session(store, reporter, Objects(LIVE), probe_memory=memory, **options).run(cells)
    return store, ended, reporter
