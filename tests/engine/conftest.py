# SPDX-License-Identifier: Apache-2.0
"""Every run of these tests is on a tiny network."""

import pytest

from tta_bench.engine import objects
from tta_bench.testing import tiny_source


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch):
    monkeypatch.setattr(
        objects, "load_model", lambda *args, **kwargs: tiny_source(classes=5, size=(3, 16, 16))
    )
