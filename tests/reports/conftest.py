# SPDX-License-Identifier: Apache-2.0
"""Run folders with known contents."""

from __future__ import annotations

import pytest

from tta_bench.records.store import Store

from ..records import synthetic  # noqa: TID252  "tests" is no installed package


@pytest.fixture(scope="session")
def make():
    """The helpers that make records, manifests and run folders."""
    return synthetic


@pytest.fixture
def cell(tmp_path):
    """A function that writes one finished cell; facts go to the manifest, ``rows`` change its records."""

    def put(name, *, folder="runs", images=40, rows=None, rate=0.6, **facts):
        store = Store(tmp_path / folder).open(create=True)
        manifest = synthetic.manifest(name, **facts)
        columns = synthetic.records(images, shift=manifest.cell.shifts[0], seed=manifest.cell.seed, rate=rate)
        synthetic.put_cell(store, manifest, columns | (rows or {}))
        return str(tmp_path / folder)

    return put
