# SPDX-License-Identifier: Apache-2.0
"""Cite a method from its card: a line with a link, and a BibTeX entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tta_bench.method import Card

LINKS = {"arXiv:": "https://arxiv.org/abs/", "openreview:": "https://openreview.net/forum?id="}
JOURNALS = ("Transactions", "Journal")
SEVERAL = 3
"""Number of authors from which a line names the first alone."""


def reference(card: Card) -> str:
    """Return authors, title, venue, year and a link in Markdown; empty for a baseline without authors."""
    if not card.authors:
        return ""
    names = [author.partition(",")[0] for author in card.authors.split(" and ")]
    who = f"{names[0]} et al." if len(names) >= SEVERAL else " and ".join(names)
    address = link(card.paper)
    where = f", [{card.paper}]({address})" if address else ""
    return f"{who}, *{card.title}*, {card.venue} {card.year}{where}."


def bibtex(key: str, card: Card) -> str:
    """Return a BibTeX entry under a key; empty for a baseline without authors."""
    if not card.authors:
        return ""
    journal = card.venue.startswith(JOURNALS)
    fields = {
        "title": f"{{{card.title}}}",  # a second brace keeps the capitals
        "author": card.authors,
        "journal" if journal else "booktitle": card.venue,
        "year": str(card.year),
    }
    if card.paper.startswith("arXiv:"):
        fields |= {"eprint": card.paper.removeprefix("arXiv:"), "archiveprefix": "arXiv"}
    elif address := link(card.paper):
        fields["url"] = address
    width = max(map(len, fields))
    lines = "".join(f"  {name:<{width}} = {{{text}}},\n" for name, text in fields.items())
    return f"@{'article' if journal else 'inproceedings'}{{{key}{card.year},\n{lines}}}\n"


def link(paper: str) -> str:
    """Return the address of a paper that a card names by an identifier, else an empty text."""
    for prefix, address in LINKS.items():
        if paper.startswith(prefix):
            return address + paper.removeprefix(prefix)
    return ""
