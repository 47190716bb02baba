# SPDX-License-Identifier: Apache-2.0
"""Twenty kills at random points; `benchmarks/kill_runs.py` does two hundred of a run of sixty cells."""

import pytest

from . import kills


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_twenty_kills_at_random_points_resume_to_the_same_bytes(tmp_path, monkeypatch):
    kills.prepare(monkeypatch)
    done = list(kills.kills(tmp_path, 20, seeds=2))
    assert [one.exact for one in done] == [True] * 20
    assert any(one.rows for one in done)
