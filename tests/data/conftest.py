# SPDX-License-Identifier: Apache-2.0
"""A data folder of its own for every test that asks for it."""

import pytest


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data root, the only one."""
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
