# SPDX-License-Identifier: Apache-2.0
"""Features are encoded once, charged to every cell, and never used where anything differs from what was written."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from tta_bench.engine import kept, objects
from tta_bench.engine.encoding import images_encoded_at_once
from tta_bench.engine.feature_files import read_index
from tta_bench.engine.kept import LIMIT_VARIABLE, entries, intact, prune, read_kept, read_size, write_kept
from tta_bench.errors import BadInputError, Caution
from tta_bench.method import Adapted, Card, Method, ViewPolicy
from tta_bench.testing import tiny_source

from . import fakes
from .fakes import FOG, SNOW, cell


@dataclass(frozen=True)
class Head(Method):
    """Predict from features, or from the mean of those of views."""

    views: int = 1
    scale: float = 1.0
    card: ClassVar[Card] = Card(
        paper="none", reset="image", independent=True, inputs="features", needs=frozenset({"features"})
    )

    def view_policy(self):
        return ViewPolicy(self.views, "crop") if self.views > 1 else None

    def adapt(self, source, state, inputs):
        assert inputs.images is None
        assert (inputs.view_features is None) == (self.views == 1)
        features = inputs.features if self.views == 1 else inputs.view_features.mean(1)
        return Adapted(state, self.scale * source.head(features))


class Counted(fakes.Noise):
    """Images that count how many of them were read."""

    read = 0

    def load(self, positions, preprocess):
        Counted.read += len(positions)
        return super().load(positions, preprocess)


DATASET = replace(fakes.NOISE, open=lambda opening: Counted(opening.shift))
SEEN = ("image_id", "prediction", "confidence", "entropy")


def run(method=None, *, memory=False, **options):
    """Run a cell into a store of its own; return its rows and how many images were read for it."""
    one = cell(method or Head(), dataset=DATASET, **options)
    store, before = fakes.ListStore(), Counted.read
    store.kept = SCORES  # the source scores of every stream are computed once, whatever the cache holds
    store, ended, _ = fakes.run([one], store, memory=memory)
    assert ended[0].status == "complete", store.manifests[ended[0].cell].error
    return store.writers[ended[0].cell], Counted.read - before


SCORES: dict = {}


def same(left, right):
    return all(left.column(name) == right.column(name) for name in SEEN)


def files(cache):
    return sorted((cache / "features").glob("*/*.safetensors"))


@pytest.fixture(autouse=True)
def scores():
    SCORES.clear()
    run()
    shutil.rmtree(kept.cache_folder())


@pytest.mark.parametrize("views", [1, 3])
def test_what_was_encoded_is_read_charged_as_before_and_predicts_the_same(views, cache):
    first, read = run(Head(views))
    assert read >= 37
    again, read = run(Head(views, scale=1.0))
    other, _ = run(Head(views, scale=2.0))
    assert read == 0, "no image is decoded for what the cache holds"
    assert same(first, again)
    assert first.column("cached") == [False] * 37
    assert again.column("cached") == other.column("cached") == [True] * 37
    for name in ("encode_ms", *(["view_ms"] if views > 1 else [])):
        assert first.column(name) == again.column(name) == other.column(name)
        assert min(first.column(name)) > 0
    assert all(map(intact, files(cache)))
    (folder,) = (cache / "features").iterdir()
    assert read_index(folder)["shift"] == "noise:fog:5"


def test_a_run_without_a_cache_predicts_the_same(cache, monkeypatch):
    first, _ = run()
    monkeypatch.setenv(LIMIT_VARIABLE, "0")
    without, read = run()
    assert read >= 37
    assert same(first, without)
    assert without.column("cached") == [False] * 37


def test_a_method_in_feature_space_sees_what_the_model_encodes():
    writer, _ = run(Head(), batch_size=64)
    source, images = tiny_source(classes=5, size=(3, 16, 16)), Counted(FOG)
    order = [images.ids.index(name) for name in writer.column("image_id")]
    expected = source.logits(images.pixels[order].float() / 255)
    assert writer.column("prediction") == expected.argmax(-1).tolist()


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"data_seed": 1}, {"shifts": (SNOW,)}, {"method": Head(2)}, {"batch_size": 1}, {"views": "reference",
     "method": Head(3)}],
)  # fmt: skip
def test_what_features_depend_on_makes_others(change, cache):
    run(Head(3) if change.get("views") else None)
    _, read = run(**change)
    assert read
    assert len(list((cache / "features").iterdir())) == 2


def test_other_weights_or_another_activation_make_other_features(cache, monkeypatch):
    first, _ = run()
    run(model="tiny-quickgelu")  # the same tensors may be those of another network
    assert len(list((cache / "features").iterdir())) == 2
    monkeypatch.setattr(
        objects, "load_model", lambda *a, **k: tiny_source(classes=5, size=(3, 16, 16), seed=9)
    )
    SCORES.clear()
    other, _ = run()
    assert len(list((cache / "features").iterdir())) == 3
    assert first.column("confidence") != other.column("confidence")


@pytest.mark.parametrize("place", [3, 200, -2])
def test_a_flipped_byte_is_noticed_and_the_file_written_again(place, cache):
    first, _ = run()
    (path,) = files(cache)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert not intact(path)
    again, read = run()
    assert read >= 37
    assert same(first, again)
    assert again.column("cached") == [False] * 37
    assert intact(path)


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_a_file_that_was_cut_is_noticed(length, cache):
    first, _ = run()
    (path,) = files(cache)
    path.write_bytes(path.read_bytes()[:length])
    again, read = run()
    assert read >= 37
    assert same(first, again)


def test_a_file_of_other_features_is_not_used(cache):
    run(seed=1)
    (foreign,) = files(cache)
    first, _ = run()
    (own,) = set(files(cache)) - {foreign}
    shutil.copy(foreign, own)
    again, read = run()
    assert read >= 37
    assert same(first, again)
    own.write_bytes(b"not ours at all")
    assert same(first, run()[0])


def test_features_in_several_files_are_read_across_their_borders(cache, monkeypatch):
    monkeypatch.setattr("tta_bench.engine.features.FILE_VIEWS", 16)
    first, _ = run(batch_size=10)
    assert len(files(cache)) == 3
    files(cache)[1].unlink()
    again, read = run(batch_size=10)
    assert 16 <= read <= 16 + 8 + 5, "the second file and the warm-up, and what was prefetched"
    assert same(first, again)
    assert again.column("cached") == [True] * 16 + [False] * 16 + [True] * 5
    whole = run(batch_size=5)[0]
    assert np.allclose(whole.column("confidence"), first.column("confidence"), atol=1e-6)


def test_a_sequence_of_shifts_shares_features_with_each_shift_alone(cache):
    fog, snow = run()[0], run(shifts=(SNOW,))[0]
    both, read = run(shifts=(FOG, SNOW), reset="never")
    assert read == 0
    assert both.column("prediction") == [*fog.column("prediction"), *snow.column("prediction")]


def test_a_resumed_cell_ends_with_the_same_predictions(cache):
    first, _ = run()
    shutil.rmtree(cache)
    one, store = cell(Head(), dataset=DATASET), fakes.ListStore(die_after=2)
    with pytest.raises(KeyboardInterrupt):
        fakes.run([one], store)
    store.die_after = None
    store, ended, _ = fakes.run([one], store, resume=True)
    assert same(first, store.writers[ended[0].cell])
    assert same(first, run()[0])


def test_memory_of_encoding_is_part_of_the_peak_also_when_it_was_not_encoded_here(cache):
    first, _ = run(memory=True)
    again, _ = run(memory=True)
    peaks = [[one for one in rows.column("peak_mib") if one is not None] for rows in (first, again)]
    assert peaks[0] == peaks[1] != []
    shutil.rmtree(cache)
    run(memory=False)
    late, _ = run(memory=True)
    assert [one for one in late.column("peak_mib") if one is not None] == peaks[0]


def test_times_that_are_measured_again_are_those_of_encoding_again(cache):
    cells = [cell(one, dataset=DATASET) for one in (Head(), Head(scale=2.0))]
    store, _, _ = fakes.run(cells, fakes.ListStore(kept=SCORES))
    before, again = Counted.read, []

    def keep(manifest, batches):
        again.append(batches[0]["cached"].tolist())
        return 0

    _, ended, _ = fakes.run(cells, store, retime=keep)
    assert [one.status for one in ended] == ["remeasured"] * 2
    assert Counted.read - before >= 37
    assert again == [[False] * 8, [True] * 8], "the second cell is charged what the first one measured anew"


def test_a_full_disk_is_told_once_and_the_run_continues(cache, monkeypatch):
    first, _ = run()
    shutil.rmtree(cache)
    monkeypatch.setattr("tta_bench.engine.features.FILE_VIEWS", 8)

    def full(tensors, path, facts):
        path.write_bytes(b"the beginning of it")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(kept, "save_file", full)
    with pytest.warns(Caution, match="could not be kept.*No space left") as told:
        without, _ = run()
    assert len(told) == 1
    assert same(first, without)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def forked(*works):
    """Run functions at once, each in a process of its own; return their exit codes."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


FORKS = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def one_thread():
    """Compute on one thread: a process that is forked waits for ever for the threads that it did not inherit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@FORKS
def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_is_used(cache, one_thread, monkeypatch):
    save = kept.save_file

    def killed(tensors, path, facts):
        save(tensors, path, facts)
        os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(kept, "save_file", killed)
        assert forked(run) == [-signal.SIGKILL]
    (left,) = (cache / "features").rglob("*.part")
    first, read = run()
    assert read >= 37
    assert same(first, run()[0])
    assert prune(1 << 30) == []
    assert left.exists(), "it may be of a process at work"
    os.utime(left, (0, 0))
    prune(1 << 30)
    assert not left.exists()


@FORKS
def test_two_processes_fill_the_cache_at_once(cache, one_thread, monkeypatch):
    first, _ = run()
    shutil.rmtree(cache)
    monkeypatch.setattr("tta_bench.engine.features.FILE_VIEWS", 8)

    def work():
        for _ in range(3):
            assert same(first, run()[0])
            for path in files(cache):
                path.unlink(missing_ok=True)

    assert forked(work, work) == [0, 0]
    assert same(first, run()[0])


def test_the_entries_used_longest_ago_make_room(cache, monkeypatch):
    run()
    run(seed=1)
    assert [one.kind for one in entries()] == ["features", "features"]
    old, new = entries()
    os.utime(new.path, (1, 1))
    os.utime(old.path, (2, 2))
    run()  # reading is using
    assert entries()[-1].path == old.path
    monkeypatch.setenv(LIMIT_VARIABLE, str(old.size + new.size + 100))
    run(seed=2)
    left = {one.path for one in entries()}
    assert old.path in left
    assert new.path not in left
    prune(0)
    assert not entries()


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, "1KB")
    path = kept.folder_of("features") / "key" / "00000.safetensors"
    with pytest.raises(OSError, match="limit"):
        write_kept(path, "key", {"x": torch.zeros(1000)}, {})
    assert read_kept(path, "key") is None


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("2GiB", 2 << 30), ("1.5k", 1500), ("7", 7)]
)
def test_sizes(text, size):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["much", "-1GB", "1 GB a day"])
def test_what_is_no_size_is_refused(text, monkeypatch):
    monkeypatch.setenv(LIMIT_VARIABLE, text)
    with pytest.raises(BadInputError, match=f"{LIMIT_VARIABLE}.*500MB"):
        kept.size_limit()


@pytest.mark.parametrize(
    ("batch", "views", "at_once"), [(1, 1, 1), (8, 1, 8), (50, 1, 64), (64, 1, 64), (500, 1, 64), (64, 64, 1),
    (64, 32, 2), (1, 32, 1), (8, 100, 1)],
)  # fmt: skip
def test_how_many_images_are_encoded_at_once(batch, views, at_once):
    assert images_encoded_at_once(batch, views) == at_once
