# SPDX-License-Identifier: Apache-2.0
"""What `data check` says of complete, incomplete and untidy folders."""

import hashlib
from dataclasses import replace

import pytest

from tta_bench.data.acquire.check import check
from tta_bench.data.acquire.prepare import chosen_parts, instructions, total_size
from tta_bench.data.catalogue.declare import OpenFiles, files_of
from tta_bench.data.layouts.opening import find
from tta_bench.errors import BadInputError, UnknownNameError

from .trees import CATALOGUE, paint

PACS_CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
DOMAINS = ("art_painting", "cartoon", "photo", "sketch")


@pytest.fixture
def pacs(data):
    """The whole of a PACS with two images per class and domain, and a declaration that counts so many."""
    for domain in DOMAINS:
        for label, name in enumerate(PACS_CLASSES):
            for number in range(2):
                paint(data / "PACS" / domain / name / f"{number}.jpg", label)
    dataset = CATALOGUE["pacs"]
    files = replace(files_of(dataset), counts={"": 14})
    return replace(dataset, open=OpenFiles(files)), files, data / "PACS"


def found(pacs, domain="photo"):
    dataset, files, _ = pacs
    return {one.shift.corruption: one for one in check(dataset, files)}[domain]


def test_a_complete_dataset_has_no_problems(pacs):
    dataset, files, root = pacs
    every = list(check(dataset, files))
    assert [one.shift.corruption for one in every] == list(DOMAINS)
    assert all(not one.problems and not one.notes and one.root == root for one in every)
    first = (root / "photo" / "dog" / "0.jpg").read_bytes()
    assert every[2].survey[:2] == (14, 7)
    assert every[2].survey.first_hash == hashlib.sha256(first).hexdigest()[:16]


def test_missing_classes_and_images_are_counted(pacs):
    root = pacs[2]
    (root / "photo" / "horse" / "0.jpg").unlink()
    assert found(pacs).problems[0].startswith("1 of 14 images are missing")
    (root / "photo" / "horse" / "1.jpg").unlink()
    assert "1 class folders are missing (horse)" in found(pacs).problems[0]
    (root / "photo" / "horse").rmdir()
    assert "1 class folders are missing (horse)" in found(pacs).problems[0]
    assert not found(pacs, "sketch").problems


def test_strangers_are_notes_and_extra_images_a_problem(pacs):
    root = pacs[2]
    paint(root / "photo" / "zebra" / "0.jpg", 0)
    (root / "photo" / "list.txt").write_text("x", encoding="utf-8")
    (root / "photo" / "dog" / ".DS_Store").write_text("x", encoding="utf-8")
    finding = found(pacs)
    assert finding.problems == ()
    assert "1 folders are no class of this dataset and are not read (zebra)" in finding.notes[0]
    assert "2 files are not read (list.txt, dog/.DS_Store)" in finding.notes[1]
    paint(root / "photo" / "dog" / "copy.jpg", 0)
    assert "1 images are there beyond the 14" in found(pacs).problems[0]


def test_a_folder_that_is_not_there_is_the_sentence_of_a_run(pacs):
    (pacs[2] / "photo").rename(pacs[2] / "photographs")
    finding = found(pacs)
    assert finding.root is None
    assert "tta-bench data prepare pacs" in finding.problems[0]
    assert str(pacs[2] / "photo") in finding.problems[0]


def test_find_takes_the_root_that_holds_the_shift(pacs, tmp_path, monkeypatch):
    dataset, files, root = pacs
    paint(tmp_path / "first" / "PACS" / "photo" / "dog" / "a.jpg", 0)
    monkeypatch.setenv("TTA_BENCH_DATA", f"{tmp_path / 'first'}:{root.parent}")
    photo, sketch = dataset.shifts(("photo", "sketch"))
    assert find(files, photo) == tmp_path / "first" / "PACS"
    assert find(files, sketch) == root


def test_parts_are_chosen_by_name():
    files = files_of(CATALOGUE["imagenet-c"])
    assert [one.file for one in chosen_parts(files, ["noise", "extra"])] == ["noise.tar", "extra.tar"]
    assert len(chosen_parts(files, [])) == 5
    with pytest.raises(UnknownNameError, match="did you mean 'noise'"):
        chosen_parts(files, ["noises"])
    with pytest.raises(BadInputError, match="has no parts"):
        chosen_parts(files_of(CATALOGUE["imagenet-a"]), ["noise"])


def test_sizes_in_words():
    assert total_size(files_of(CATALOGUE["imagenet-a"]).downloads) == "0.6 GiB"
    assert total_size(files_of(CATALOGUE["imagenet-c"]).downloads) == "5 files of unpublished size"


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_instructions_show_the_tree_and_the_next_command(name, tmp_path):
    files = files_of(CATALOGUE[name])
    text = "\n".join(instructions(files, tmp_path))
    assert f"tta-bench data check {name}" in text
    assert all(line in text for line in files.tree)
    assert all(step in text for step in files.steps)
