# SPDX-License-Identifier: Apache-2.0
"""Prompt sets: the published texts, one switch for every method, and a record of what was encoded."""

from __future__ import annotations

import open_clip
import pytest

from tta_bench import registry
from tta_bench.data.dataset import Dataset
from tta_bench.engine.objects import Objects
from tta_bench.engine.planning import plan
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.prompts import find_prompts, named, prompt_names, read_prompts
from tta_bench.spec import Request


def test_the_sets_of_clip_are_those_of_open_clip():
    assert named("ensemble").templates == tuple(form("{}") for form in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert named("seven").templates == tuple(form("{}") for form in open_clip.SIMPLE_IMAGENET_TEMPLATES)
    assert named("single").templates == ("a photo of a {}.",)
    assert len(named("ensemble").templates) == 80


@pytest.mark.parametrize("name", prompt_names())
def test_a_set_has_templates_of_its_own_and_a_source(name):
    one = named(name)
    assert one.templates
    assert len(set(one.templates)) == len(one.templates)
    assert all(template.count("{}") == 1 and template.format("x") for template in one.templates)
    assert "arXiv:" in one.source
    twins = [other for other in prompt_names() if named(other).hash == one.hash]
    assert twins == [name]


def test_every_set_of_a_dataset_is_registered():
    known = {named(name).templates for name in prompt_names()}
    for name, point in registry.registered("datasets").items():
        dataset = registry.load("datasets", name)
        if isinstance(dataset, Dataset) and "pocket" not in point.value:
            assert {dataset.templates, *dataset.prompt_sets.values()} <= known, name


def test_a_name_means_the_datasets_set_before_the_registered_one_before_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ensemble", "seven", "mine"):
        (tmp_path / name).write_text("from the file: {}\n", encoding="utf-8")
    own = {"dataset": ("own {}",), "ensemble": ("a {}", "the {}")}
    assert find_prompts("ensemble", own).templates == ("a {}", "the {}")
    assert find_prompts("dataset", own).templates == ("own {}",)
    assert find_prompts("seven", own) == named("seven")
    assert find_prompts("mine", own).templates == ("from the file: {}",)


def test_a_file_has_one_template_per_line(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("\ufeffa photo of a {}.\r\n\r\n  ein Bild von {}\r\n".encode())
    assert read_prompts(path).templates == ("a photo of a {}.", "ein Bild von {}")
    assert read_prompts(path).name == "mine.txt"
    for text, problem in (
        ("", "got none"),
        ("a photo", "'a photo'"),
        ("{} {}", "exactly one"),
        ("{0}", "one {}"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(BadInputError, match=problem):
            read_prompts(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadInputError, match="UTF-8"):
        read_prompts(path)


def test_unknown_names_and_missing_files_say_what_to_do():
    with pytest.raises(UnknownNameError, match=r"did you mean 'ensemble'.*list prompts"):
        find_prompts("ensembl", {"dataset": ("{}",)})
    with pytest.raises(BadInputError, match=r"'mine\.txt', which does not exist"):
        find_prompts("mine.txt", {})


SEVEN = '''
from dataclasses import dataclass

from tta_bench.adapters.clip import Clip
from tta_bench.method import Card


@dataclass(frozen=True)
class Mine(Clip):
    """Declare the seven, and in a preset the one."""

    card = Card(**(vars(Clip.card) | {"prompts": "seven"}))
    presets = {"one": {"prompts": "single"}}
'''


def test_a_method_takes_its_declared_set_unless_one_is_chosen(tmp_path):
    path, objects = tmp_path / "mine.py", Objects()
    path.write_text(SEVEN, encoding="utf-8")
    pocket = registry.load("datasets", "pocket").templates

    def chosen(**asked):
        found = plan(Request(("clip", "mine"), ("pocket",), plugins=(str(path),), **asked))
        return {cell.method: (cell.prompts, objects.dataset(cell).templates) for cell in found}

    assert chosen() == {"clip": ("dataset", pocket), "mine": ("seven", named("seven").templates)}
    assert chosen(presets={"mine": "one"})["mine"] == ("single", named("single").templates)
    for asked in ({}, {"presets": {"mine": "one"}}):
        expected = ("ensemble", named("ensemble").templates)
        assert chosen(prompts="ensemble", **asked) == {"clip": expected, "mine": expected}
