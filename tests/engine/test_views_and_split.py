# SPDX-License-Identifier: Apache-2.0
"""What the runner brings to methods that ask for more than images: views, features of views, source images."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from tta_bench.data.images import views
from tta_bench.data.images.views import make_views, view_numbers
from tta_bench.engine.split import SplitBatches
from tta_bench.errors import BadInputError
from tta_bench.method import Adapted, Card, Method, ViewPolicy
from tta_bench.spec import counter_seed
from tta_bench.testing import tiny_source

from . import fakes

SEEN = []


@dataclass(frozen=True)
class Watcher(Method):
    """Predict as the source does and keep what was handed over in a list of this module."""

    count: int = 3
    card: ClassVar[Card] = Card(paper="none", reset="image", independent=True, views=ViewPolicy(2, "crop"))

    def view_policy(self):
        return ViewPolicy(self.count, "augmix")

    def adapt(self, source, state, inputs):
        SEEN.append(inputs)
        return Adapted(state, source.logits(inputs.images))


@dataclass(frozen=True)
class FeatureWatcher(Watcher):
    """The same for features."""

    card: ClassVar[Card] = dataclasses.replace(Watcher.card, needs=frozenset({"features"}))


@dataclass(frozen=True)
class SourceWatcher(Method):
    """Keep the source images that come with each batch."""

    card: ClassVar[Card] = Card(
        paper="none", reset="batch", needs=frozenset({"source_replay", "source_labels"})
    )

    def init(self, source, task):
        SEEN.append(task)
        return {}

    def adapt(self, source, state, inputs):
        SEEN.append(inputs)
        return Adapted(state, source.logits(inputs.images))


@dataclass(frozen=True)
class Unlabelled(SourceWatcher):
    """Ask for source images without their labels."""

    card: ClassVar[Card] = Card(paper="none", reset="batch", needs=frozenset({"source_replay"}))


SOURCE = fakes.Noise("source", count=21)
WITH_SOURCE = dataclasses.replace(fakes.NOISE, source_split=lambda: SOURCE)


@pytest.fixture(autouse=True)
def fresh():
    SEEN.clear()


def run(method, *, dataset=fakes.NOISE, batch_size=8, seed=0, views="device", store=None, resume=False):
    cell = fakes.cell(method, batch_size=batch_size, seed=seed, dataset=dataset, views=views)
    store, ended, _ = fakes.run([cell], store, resume=resume)
    assert ended[0].status == "complete", store.manifests[ended[0].cell].error
    return store.writers[ended[0].cell], store.manifests[ended[0].cell]


def by_id(writer, leaf):
    images = torch.cat([getattr(inputs, leaf) for inputs in SEEN])
    return dict(zip(writer.column("image_id"), images, strict=True))


def test_views_are_made_by_seed_and_image_id_and_timed_as_such():
    writer, manifest = run(Watcher())
    made = by_id(writer, "views")
    images = by_id(writer, "images")
    for image_id, found in made.items():
        generator = torch.Generator().manual_seed(counter_seed("view", 0, image_id))
        numbers = view_numbers("augmix", 3, generator)
        assert torch.equal(found, make_views(images[image_id][None], numbers[None], "augmix")[0])
    assert all(value > 0 for value in writer.column("view_ms"))
    assert manifest.protocol.views == f"augmix 3 version {views.VERSION}"


def test_views_by_the_published_recipe_can_be_asked_for():
    writer, manifest = run(Watcher(), views="reference")
    images = by_id(writer, "images")
    for image_id, found in by_id(writer, "views").items():
        numbers = view_numbers("augmix", 3, torch.Generator().manual_seed(counter_seed("view", 0, image_id)))
        expected = make_views(images[image_id][None], numbers[None], "augmix", recipe="reference")
        assert torch.equal(found, expected[0])
    assert manifest.protocol.views == "augmix 3 by the published recipe"


def test_views_depend_on_the_seed_and_not_on_the_batch():
    found = []
    for options in ({}, {"batch_size": 3}, {"seed": 1}):
        SEEN.clear()
        writer, _ = run(Watcher(), **options)
        found.append(by_id(writer, "views"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not any(torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_methods_in_feature_space_get_the_features_of_views():
    run(FeatureWatcher())
    source = tiny_source(classes=5, size=(3, 16, 16))
    for inputs in SEEN:
        assert inputs.view_features.shape == (len(inputs.images), 3, source.dim)
        assert torch.allclose(inputs.features, source.encode(inputs.images), atol=1e-5)
        assert torch.allclose(inputs.view_features[:, 1], source.encode(inputs.views[:, 1]), atol=1e-5)


def test_source_images_come_in_batches_with_their_labels():
    _, manifest = run(SourceWatcher(), dataset=WITH_SOURCE)
    task, *steps = SEEN
    assert len(task.source) == 21
    replayed = torch.cat([inputs.source_images for inputs in steps])
    labels = torch.cat([inputs.source_labels for inputs in steps])
    assert len(replayed) == 8 * len(steps)
    pixels = (replayed * 255).round().byte()
    rows = [int((SOURCE.pixels == one).flatten(1).all(1).nonzero()[0, 0]) for one in pixels]
    assert sorted(rows[:21]) == list(range(21)), "each image once before any comes again"
    assert rows[:21] != list(range(21)), "in the order of the seed, not of the files"
    assert rows[21:] == rows[: len(rows) - 21]
    assert labels.tolist() == SOURCE.labels[rows].tolist()
    assert manifest.protocol.source_split == SOURCE.data_hash
    assert manifest.protocol.source_data == "source_labels, source_replay"


def test_labels_of_source_images_come_only_where_they_are_asked_for():
    run(Unlabelled(), dataset=WITH_SOURCE)
    assert all(inputs.source_labels is None for inputs in SEEN[1:])


def test_a_run_that_goes_on_sees_the_source_images_that_it_would_have_seen():
    run(SourceWatcher(), dataset=WITH_SOURCE)
    whole = [inputs.source_images for inputs in SEEN[1:]]
    store = fakes.ListStore(die_after=2)
    with pytest.raises(KeyboardInterrupt):
        run(SourceWatcher(), dataset=WITH_SOURCE, store=store)
    store.die_after = None
    SEEN.clear()
    run(SourceWatcher(), dataset=WITH_SOURCE, store=store, resume=True)
    assert len(SEEN) == 1 + len(whole) - 2
    assert all(
        torch.equal(inputs.source_images, one) for inputs, one in zip(SEEN[1:], whole[2:], strict=True)
    )


def test_a_dataset_without_source_images_is_refused_before_anything_runs():
    store = fakes.ListStore()
    with pytest.raises(BadInputError, match=r"source_labels, source_replay.*'noise'.*pocket-c"):
        run(SourceWatcher(), store=store)
    assert not store.manifests


def test_methods_that_ask_for_nothing_get_nothing():
    run(
        fakes.Same(), dataset=dataclasses.replace(fakes.NOISE, source_split=lambda: pytest.fail("was opened"))
    )


def test_source_images_are_decoded_once_for_all_cells_of_a_run():
    asked = []

    class Counted(fakes.Noise):
        def load(self, positions, preprocess):
            asked.extend(positions)
            return super().load(positions, preprocess)

    split = Counted("source", count=21)
    dataset = dataclasses.replace(fakes.NOISE, source_split=lambda: split)
    plans = [
        fakes.cell(SourceWatcher(), shifts=(shift,), dataset=dataset) for shift in (fakes.FOG, fakes.SNOW)
    ]
    _, ended, _ = fakes.run(plans)
    assert [one.status for one in ended] == ["complete"] * 2
    assert sorted(asked) == list(range(21))


def test_the_preparation_of_a_method_tells_how_far_it_is():
    class Reading(SourceWatcher):
        """Read twelve source images before the stream."""

        def init_reads(self, available):
            return min(12, available)

        def init(self, source, task):
            for index in range(3):
                task.source.batch(index, 4)
            return super().init(source, task)

    plan = fakes.cell(dataclasses.dataclass(frozen=True)(Reading)(), dataset=WITH_SOURCE)
    _, _, reporter = fakes.run([plan])
    assert reporter.prepared == [("fake", 4, 12), ("fake", 8, 12), ("fake", 12, 12)]


def test_loading_source_images_is_counted_as_the_harness_s_own_time():
    split = SplitBatches(SOURCE, tiny_source(classes=5), seed=0)
    assert split.seconds == 0
    images, labels = split.batch(2, 10)
    assert split.seconds > 0
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert np.isclose(float(images.max()), 1, atol=0.05)
