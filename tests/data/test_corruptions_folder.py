# SPDX-License-Identifier: Apache-2.0
"""Corrupted copies of a folder: layout, resume, workers, hashes, refusals."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from tta_bench.data.corruptions import CORRUPTIONS, EXTRA, corrupt, corrupt_folder
from tta_bench.data.corruptions.folder import expand_names
from tta_bench.errors import BadInputError, UnknownNameError


@pytest.fixture
def src(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "src"
    for name, size in (("a/one.png", (40, 48)), ("a/two.JPEG", (64, 64)), ("b/c/three.bmp", (33, 70))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not a picture")
    return folder


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image


def hashes(dst):
    lines = (dst / "SHA256SUMS").read_text().splitlines()
    return {name: value for value, name in (line.split("  ") for line in lines)}


def test_every_picture_gets_a_copy_per_corruption_and_severity(src, tmp_path):
    dst, seen = tmp_path / "dst", []
    report = corrupt_folder(
        src, dst, ["fog", "contrast"], [1, 5], 3, progress=lambda *counts: seen.append(counts)
    )
    assert report == (3, 12, 12, ())
    assert seen == [(1, 3), (2, 3), (3, 3)]
    sums = hashes(dst)
    assert set(sums) == {
        f"{name}/{severity}/{file}"
        for name in ("fog", "contrast")
        for severity in (1, 5)
        for file in ("a/one.png", "a/two.png", "b/c/three.png")
    }
    assert all(hashlib.sha256((dst / name).read_bytes()).hexdigest() == value for name, value in sums.items())
    image = torch.from_numpy(np.array(opened(src / "a/one.png"))).permute(2, 0, 1)[None]
    expected = corrupt(image, "fog", 5, 3, ids=["a/one"])[0].permute(1, 2, 0)
    assert np.array_equal(np.array(opened(dst / "fog/5/a/one.png")), expected.numpy())
    manifest = json.loads((dst / "manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["settings"]["seed"] == 3
    assert manifest["sums_sha256"] == hashlib.sha256((dst / "SHA256SUMS").read_bytes()).hexdigest()
    assert not list(dst.rglob("*.part"))


def test_a_killed_run_goes_on_and_more_can_be_added(src, tmp_path):
    whole, dst = tmp_path / "whole", tmp_path / "dst"
    corrupt_folder(src, whole, ["snow", "fog"], [2])

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corrupt_folder(src, dst, ["snow"], [2], progress=stop)
    assert json.loads((dst / "manifest.json").read_text())["status"] == "running"
    assert corrupt_folder(src, dst, ["snow"], [2]).written == 2
    assert corrupt_folder(src, dst, ["snow"], [2]).written == 0
    assert corrupt_folder(src, dst, ["fog"], [2]).files == 6
    assert hashes(dst) == hashes(whole)
    assert json.loads((dst / "manifest.json").read_text())["corruptions"] == ["fog", "snow"]


def test_workers_do_not_change_the_files(src, tmp_path):
    corrupt_folder(src, tmp_path / "one", ["gaussian_noise"], [3])
    corrupt_folder(src, tmp_path / "two", ["gaussian_noise"], [3], workers=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_pictures_are_resized_and_cropped_first(src, tmp_path):
    corrupt_folder(src, tmp_path / "crop", ["contrast"], [1], resize=40, crop=32)
    corrupt_folder(src, tmp_path / "resize", ["contrast"], [1], resize=36)
    assert opened(tmp_path / "crop/contrast/1/b/c/three.png").size == (32, 32)
    assert opened(tmp_path / "resize/contrast/1/b/c/three.png").size == (76, 36)


def test_jpeg_files_are_those_of_the_distributed_set(src, tmp_path):
    corrupt_folder(src, tmp_path / "jpeg", ["contrast"], [1], file_format="jpeg")
    names = set(hashes(tmp_path / "jpeg"))
    assert names == {"contrast/1/a/one.jpg", "contrast/1/a/two.JPEG", "contrast/1/b/c/three.jpg"}
    assert opened(tmp_path / "jpeg/contrast/1/a/one.jpg").format == "JPEG"


def test_a_broken_picture_stops_or_is_left_out(src, tmp_path):
    (src / "a/broken.png").write_bytes(b"no picture at all")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(src / "a/tiny.png")
    with pytest.raises(BadInputError, match="broken"):
        corrupt_folder(src, tmp_path / "dst", ["contrast"], [1])
    report = corrupt_folder(src, tmp_path / "dst", ["contrast"], [1], on_bad_image="skip")
    assert [one.file for one in report.left_out] == ["a/broken.png", "a/tiny.png"]
    assert "broken.png cannot be decoded (UnidentifiedImageError" in report.left_out[0].reason
    assert "tiny.png is 8x8, smaller than" in report.left_out[1].reason
    manifest = json.loads((tmp_path / "dst" / "manifest.json").read_text())
    assert manifest["left_out"] == ["a/broken.png", "a/tiny.png"]
    assert report.images == 3


def test_pictures_are_found_as_readers_find_them(src, tmp_path):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(src / "a/four.pgm")
    (src / "a/._one.png").write_bytes(b"resource fork")
    (src / "x.png").mkdir()
    (src / "linked").symlink_to(src.parent / "elsewhere")
    (src.parent / "elsewhere").mkdir()
    (src / "a/two.JPEG").rename(src.parent / "elsewhere" / "two.JPEG")
    report = corrupt_folder(src, tmp_path / "dst", ["contrast"], [1])
    assert report == (4, 4, 4, ())
    names = {f"contrast/1/{file}.png" for file in ("a/one", "a/four", "b/c/three", "linked/two")}
    assert set(hashes(tmp_path / "dst")) == names


def test_what_does_not_fit_is_refused(src, tmp_path):
    with pytest.raises(UnknownNameError, match="contrast"):
        corrupt_folder(src, tmp_path / "dst", ["contrasts"], [1])
    with pytest.raises(BadInputError, match="1 to 5"):
        corrupt_folder(src, tmp_path / "dst", ["contrast"], [0])
    with pytest.raises(BadInputError, match="inside"):
        corrupt_folder(src, src / "dst", ["contrast"], [1])
    with pytest.raises(BadInputError, match="folder of images"):
        corrupt_folder(src / "missing", tmp_path / "dst", ["contrast"], [1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInputError, match="no images"):
        corrupt_folder(tmp_path / "empty", tmp_path / "dst", ["contrast"], [1])
    corrupt_folder(src, tmp_path / "dst", ["contrast"], [1], seed=1)
    with pytest.raises(BadInputError, match="seed"):
        corrupt_folder(src, tmp_path / "dst", ["contrast"], [1], seed=2)
    with pytest.raises(BadInputError, match=r"no manifest\.json"):
        corrupt_folder(tmp_path / "dst" / "contrast", src, ["contrast"], [1])


def test_two_pictures_of_one_name_are_refused(src, tmp_path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(src / "a/one.bmp")
    with pytest.raises(BadInputError, match="same name"):
        corrupt_folder(src, tmp_path / "dst", ["contrast"], [1])


def test_all_means_the_fifteen_and_groups_their_members():
    assert expand_names(["all"]) == CORRUPTIONS
    assert expand_names(["extra", "fog", "extra"]) == (*EXTRA, "fog")
    assert expand_names(["noise"]) == CORRUPTIONS[:3]
