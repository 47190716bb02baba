# SPDX-License-Identifier: Apache-2.0
"""Every protocol fact decides about the card, the id of the cell, and what may stand in one table."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tta_bench.records.store import Store
from tta_bench.reports.facts import conflicts
from tta_bench.reports.load import load_cells
from tta_bench.spec import FACTS, Protocol

from ..records.synthetic import manifest, put_cell, records  # noqa: TID252  "tests" is no installed package

BASE = manifest("base")
NAMES = [fact.name for fact in FACTS]


def other(value):
    """Return another value of the same type."""
    if value is None or isinstance(value, tuple):
        return (*(value or ()), 3)
    return value + 1 if isinstance(value, int) else f"{value} other"


def test_every_fact_is_declared_once_with_scope_and_explanation():
    assert [one.name for one in fields(Protocol)] == NAMES
    assert {fact.scope for fact in FACTS} == {"table", "shift", "seed", "column"}
    assert all(fact.explanation[0].isupper() and fact.explanation.endswith(".") for fact in FACTS)


@pytest.mark.parametrize("name", NAMES)
def test_changing_one_fact_alone_changes_the_card_and_the_id(name):
    changed = replace(BASE.protocol, **{name: other(getattr(BASE.protocol, name))})
    assert changed.hash != BASE.protocol.hash
    assert BASE.cell.id(changed) != BASE.cell.id(BASE.protocol)
    both = (changed.comparable | changed.columns, BASE.protocol.comparable | BASE.protocol.columns)
    assert {key for key in both[0] if both[0][key] != both[1][key]} == {name}


@pytest.mark.parametrize("fact", FACTS, ids=NAMES)
def test_the_scope_of_a_fact_decides_which_rows_must_agree(tmp_path, fact):
    value = other(getattr(BASE.protocol, fact.name))
    store = Store(str(tmp_path)).open(create=True)
    shift, seed = "imagenet-c:snow:5", 1
    for place, cell in enumerate(({}, {"shifts": (shift,)}, {"seed": seed})):
        changes = {"method": "other", **cell}
        put_cell(store, manifest(f"a{place}", cell=cell), records(1))
        protocol = {fact.name: value} if place == 0 else {}
        put_cell(store, manifest(f"b{place}", cell=changes, protocol=protocol), records(1))
    cells = load_cells([str(tmp_path)])
    found = {conflict.fact for conflict in conflicts(cells, "dataset")}
    assert found == (set() if fact.scope == "column" else {fact.name})
    apart = {"table": [], "shift": ["a1"], "seed": ["a1", "a2"], "column": ["a0", "a1", "a2"]}[fact.scope]
    for name in apart:
        pair = [one for one in cells if one.manifest.id in ("b0", name)]
        assert not conflicts(pair, "dataset")
    if fact.scope == "table":
        assert conflicts([one for one in cells if one.manifest.id in ("b0", "a1")], "dataset")


def test_labels_of_a_cell_are_not_in_its_id():
    labels = {"prompts": "other", "data_options": {"elastic": "original"}, "variant": "lr=1"}
    assert replace(BASE.cell, **labels).id(BASE.protocol) == BASE.cell.id(BASE.protocol)
    for name in ("method", "method_hash", "model", "preset", "seed", "data_seed", "scenario", "chosen"):
        changed = replace(BASE.cell, **{name: other(getattr(BASE.cell, name))})
        assert changed.id(BASE.protocol) != BASE.cell.id(BASE.protocol), name
