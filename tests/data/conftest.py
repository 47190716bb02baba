# SPDX-License-Identifier: Apache-2.0
"""Data and cache folders of their own for every test that asks for them."""

import pytest


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data root, the only one; the cache is apart."""
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
