# SPDX-License-Identifier: Apache-2.0
"""The data hash changes with every byte and every option; what was found out once is found out again in time."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from tta_bench.data.catalogue.families import folder, wds
from tta_bench.data.dataset import OpenRequest, Shift
from tta_bench.data.images import contents
from tta_bench.data.images.bad import unreadable
from tta_bench.data.images.contents import file_sums
from tta_bench.data.images.files import Paths
from tta_bench.data.layouts.base import file_hash
from tta_bench.errors import BadInputError
from tta_bench.pocket.datasets import open_pocket

from .test_layouts_families import jpeg, write_shard


def bitmap(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def pictures(tmp_path):
    for index, name in enumerate(("cat", "cat", "dog")):
        bitmap(tmp_path / "pictures" / name / f"{index}.bmp", index)
    return tmp_path / "pictures"


def folder_hash(path, rest="", **options):
    dataset, _ = folder(f"{path}{rest}")
    shift = dataset.shifts(("frost",), (3,))[0] if rest else dataset.shifts()[0]
    return dataset.open(OpenRequest(shift, options={"workers": 0, **options})).data_hash


def pocket_hash(corruption, **options):
    return open_pocket(OpenRequest(Shift("pocket-c", corruption, 3), options=options)).data_hash


def test_every_option_changes_the_hash_of_pocket_images(tmp_path):
    bitmap(tmp_path / "frost" / "a.png", 200)
    hashes = [
        pocket_hash("elastic_transform"),
        pocket_hash("elastic_transform", elastic="imagecorruptions"),
        pocket_hash("elastic_transform", emulate_distributed=True),
        pocket_hash("elastic_transform", frost_dir=tmp_path / "frost"),
    ]
    assert len(set(hashes)) == 4
    assert pocket_hash("elastic_transform", elastic=None, emulate_distributed=False) == hashes[0]


def test_the_hash_of_pocket_images_without_options_is_that_of_earlier_runs():
    assert pocket_hash("fog") == "83f44bf5c334535e"


def test_pictures_of_one_size_that_change_places_change_the_hash(pictures):
    before = folder_hash(pictures)
    one, two = pictures / "cat" / "0.bmp", pictures / "cat" / "1.bmp"
    assert one.stat().st_size == two.stat().st_size
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert folder_hash(pictures) != before


def test_the_hash_does_not_depend_on_the_place_or_the_time(pictures, tmp_path):
    before = folder_hash(pictures)
    os.utime(pictures / "cat" / "0.bmp", (1, 1))
    moved = pictures.rename(tmp_path / "elsewhere")
    assert folder_hash(moved) == before


def test_another_picture_in_an_archive_changes_the_hash(tmp_path):
    def shard_hash():
        dataset, _ = wds(str(tmp_path / "a.tar"))
        return dataset.open(OpenRequest(dataset.shifts()[0])).data_hash

    (tmp_path / "classnames.txt").write_text("ant\nbee\n", encoding="utf-8")
    whole = jpeg(0)
    write_shard(tmp_path / "a.tar", [("0.jpg", whole), ("0.cls", b"1")])
    before = shard_hash()
    write_shard(tmp_path / "a.tar", [("0.jpg", whole[:-3] + b"\0" + whole[-2:]), ("0.cls", b"1")])
    assert shard_hash() != before


def test_the_hash_follows_the_frost_pictures_and_not_their_place(pictures, tmp_path):
    texture = bitmap(tmp_path / "frost" / "a.png", 200)
    before = folder_hash(pictures, ":frost:3", frost_dir=texture.parent)
    moved = texture.parent.rename(tmp_path / "moved")
    assert folder_hash(pictures, ":frost:3", frost_dir=moved) == before
    bitmap(moved / "a.png", 201)
    assert folder_hash(pictures, ":frost:3", frost_dir=moved) != before


def test_a_file_is_read_once_until_it_changes(pictures, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_S", -10)
    files = [str(path) for path in sorted(pictures.rglob("*.bmp"))]
    before = file_sums(files)
    read = []
    monkeypatch.setattr(contents, "_sum", lambda path: read.append(path) or "new")
    assert file_sums(files) == before
    assert read == []
    bitmap(pictures / "cat" / "1.bmp", 77)
    assert file_sums(files) == [before[0], "new", before[2]]
    assert read == [str(pictures / "cat" / "1.bmp")]


def test_what_was_written_just_now_is_not_taken_for_known(pictures, cache):
    file_sums([str(path) for path in pictures.rglob("*.bmp")])
    assert not (cache / "file-sums").exists()


def test_a_damaged_cache_is_made_again(pictures, cache, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_S", -10)
    files = [str(path) for path in sorted(pictures.rglob("*.bmp"))]
    before = file_sums(files)
    kept = next((cache / "file-sums").iterdir())
    kept.write_text(kept.read_text(encoding="utf-8")[:-9], encoding="utf-8")
    assert file_sums(files) == before
    assert len(json.loads(kept.read_text(encoding="utf-8"))) == 3


def test_a_cache_that_cannot_be_written_is_a_sentence(pictures, cache, monkeypatch):
    monkeypatch.setattr(contents, "SETTLED_S", -10)
    cache.write_text("a file in its place", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"must be a file that can be written.*TTA_BENCH_CACHE"):
        folder_hash(pictures)


def found_bad(base):
    return unreadable(Paths(base, ["cat/0.bmp", "cat/1.bmp", "dog/2.bmp"]), np.array([0, 1, 2]), 0)


def test_a_fixed_image_is_used_and_a_newly_broken_one_left_out(pictures):
    whole = (pictures / "cat" / "0.bmp").read_bytes()
    (pictures / "cat" / "0.bmp").write_bytes(b"x" * len(whole))
    assert found_bad(pictures) == [0]
    (pictures / "cat" / "0.bmp").write_bytes(whole)
    (pictures / "cat" / "1.bmp").write_bytes(b"x" * len(whole))
    assert found_bad(pictures) == [1]


def test_copies_of_one_set_are_looked_at_each(pictures, tmp_path):
    assert found_bad(pictures) == []
    for name in ("cat/0.bmp", "cat/1.bmp", "dog/2.bmp"):
        bitmap(tmp_path / "copy" / name, 3)
    (tmp_path / "copy" / "dog" / "2.bmp").write_bytes(b"x" * 100)
    assert found_bad(tmp_path / "copy") == [2]


def test_a_picture_that_may_not_be_read_is_asked_for_again(pictures, cache, monkeypatch):
    def refuse(self, position):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as denied:
        denied.setattr(Paths, "read", refuse)
        assert found_bad(pictures) == [0, 1, 2]
    assert found_bad(pictures) == []
    assert [path.suffix for path in (cache / "bad-images").iterdir()] == [".json"]


def test_reading_many_files_is_told_and_kept_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "TOLD_S", 0.0)
    monkeypatch.setattr(contents, "SETTLED_S", -1e9)
    monkeypatch.setattr(contents, "KEPT_EVERY", 4)
    paths = []
    for number in range(9):
        paths.append(str(tmp_path / f"{number}.bin"))
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]))
    told = []

    def stop_at_six(done, total):
        told.append((done, total))
        if done == 6:
            raise KeyboardInterrupt

    with contents.report_reading(stop_at_six), pytest.raises(KeyboardInterrupt):
        contents.file_sums(paths)
    assert told == [(number, 9) for number in range(1, 7)]
    read = []
    monkeypatch.setattr(contents, "_sum", lambda path: read.append(path) or "sum")
    contents.file_sums(paths)
    assert sorted(read) == sorted(paths[4:]), "the first four were kept before the run was ended"


@pytest.mark.parametrize("content", ["[1]", '{"a": 1}', '{"a": [1]}', "[" * 100000, "null", '"x"'])
def test_a_damaged_cache_of_sums_is_as_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(contents, "SETTLED_S", -1e9)
    (tmp_path / "a.bin").write_bytes(b"a")
    before = contents.file_sums([str(tmp_path / "a.bin")])
    [kept] = (tmp_path / "cache" / "file-sums").iterdir()
    kept.write_text(content, encoding="utf-8")
    assert contents.file_sums([str(tmp_path / "a.bin")]) == before


def test_the_hashes_that_cells_depend_on_are_those_of_earlier_runs(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea"
    assert file_sums([str(tmp_path / "a")]) == ["ba7816bf8f01cfea"]
