# SPDX-License-Identifier: Apache-2.0
"""The pages of the methods: those in the repository are the ones that the methods make, and nothing is missing."""

import re
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from tta_bench import registry
from tta_bench.errors import BadInputError
from tta_bench.method import Card
from tta_bench.reports.citation import bibtex, reference
from tta_bench.reports.method_pages import main, table, write_pages
from tta_bench.reports.method_text import read_docstring

PAGES = Path(__file__).parents[2] / "docs" / "methods"
NAMES = sorted(
    n for n, p in registry.registered("methods").items() if p.module.startswith("tta_bench.adapters.")
)


def test_the_pages_in_the_repository_are_those_that_the_methods_make(tmp_path):
    made = {path.name: path.read_bytes() for path in write_pages(tmp_path / "new")}
    kept = {path.name: path.read_bytes() for path in PAGES.iterdir()}
    stale = sorted(name for name in made.keys() | kept.keys() if made.get(name) != kept.get(name))
    assert not stale, (
        "run: python -m tta_bench.reports.method_pages docs/methods, and delete what it does not write"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_page_holds_every_fact_of_its_method(name):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    method = registry.load("methods", name)
    for field in fields(method):
        row = re.search(rf"^\| `{field.name}` \| `.+` \| (.+) \|$", text, re.MULTILINE)
        assert row, f"{field.name} has no row or no meaning"
    assert all(f"| `{preset}` |" in text for preset in method.presets)
    assert f"| cost of a step | {method.card.cost} |" in text
    assert method.card.cost
    assert method.card.notes in text
    assert ("## Equations" in text) == (name != "source")
    assert ("```bibtex\n@" in text) == (method.card.paper != "baseline")
    assert f"]({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


def test_bibtex_of_a_conference_a_journal_and_a_baseline():
    card = Card(
        paper="arXiv:1234.5678", title="A Title", authors="B, A and D, C", venue="Some Conference", year=2020
    )
    assert bibtex("tent", card) == (
        "@inproceedings{tent2020,\n"
        "  title         = {{A Title}},\n"
        "  author        = {B, A and D, C},\n"
        "  booktitle     = {Some Conference},\n"
        "  year          = {2020},\n"
        "  eprint        = {1234.5678},\n"
        "  archiveprefix = {arXiv},\n"
        "}\n"
    )
    assert reference(card) == (
        "B and D, *A Title*, Some Conference 2020, [arXiv:1234.5678](https://arxiv.org/abs/1234.5678)."
    )
    journal = Card(
        paper="openreview:xyz",
        title="T",
        authors="B, A and D, C and F, E",
        venue="Transactions on X",
        year=2021,
    )
    assert bibtex("m", journal).startswith("@article{m2021,\n  title   = {{T}},")
    assert "  url     = {https://openreview.net/forum?id=xyz},\n" in bibtex("m", journal)
    assert "journal = {Transactions on X}" in bibtex("m", journal)
    assert reference(journal).startswith("B et al., *T*")
    baseline = Card(paper="baseline", title="T")
    assert bibtex("m", baseline) == reference(baseline) == ""


def test_a_docstring_is_read_by_its_parts():
    @dataclass
    class Base:
        """Be a base.

        Attributes:
            a: What a is,
                on two lines.
            b: What b is here.
        """

    @dataclass
    class Derived(Base):
        """Do something.

        By ``x = y`` and ``name`` with
        ``f(long thing)``, again ``x = y``.

        Source: a paper.
        Differs: in something,
        and more.

        Attributes:
            b: Another thing.
        """

    said = read_docstring(Derived)
    assert said.summary == "Do something."
    assert said.body == ("By ``x = y`` and ``name`` with ``f(long thing)``, again ``x = y``.",)
    assert said.equations() == ["x = y", "f(long thing)"]
    assert (said.source, said.differs) == ("a paper.", "in something, and more.")
    assert said.attributes == {"a": "What a is, on two lines.", "b": "Another thing."}
    assert said.paragraphs()[2:] == ["Source: a paper.", "Differs: in something, and more."]


def test_a_bar_does_not_break_a_table():
    assert table(("a", "b"), [("|x|", "y")]) == "| a | b |\n| --- | --- |\n| \\|x\\| | y |\n"


def test_the_generator_wants_one_folder():
    with pytest.raises(BadInputError, match="expected one folder"):
        main([])
