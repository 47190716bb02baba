# SPDX-License-Identifier: Apache-2.0
"""ZERO: votes, and the three ways in which a tie ends."""

import pytest
import torch
from tta_bench.adapters.zero import Zero


@pytest.fixture
def votes(recorded, watch):
    """Votes for views that are given as (class, sureness) over four orthogonal texts."""

    def cast(views, selection=0.5):
        text = torch.eye(4, dtype=torch.float64)
        rows = torch.stack([text[c] * sure + (1 - sure) * text.mean(0) for c, sure in views])
        rows = rows / rows.norm(dim=-1, keepdim=True)
        method = Zero(views=len(views), selection=selection)
        return watch(method, recorded(text, scale=5.0), rows.unsqueeze(0))[2][0].tolist()

    return cast


def test_the_confident_views_vote(votes):
    assert votes([(0, 0.9), (0, 0.8), (1, 0.7), (2, 0.1), (2, 0.1), (2, 0.1)]) == [2, 1, 0, 0]


def test_a_tie_goes_to_the_first_remaining_view_that_names_a_tied_class(votes):
    views = [(0, 0.9), (1, 0.8), (2, 0.6), (1, 0.5)]
    assert votes(views) == [1, 2, 0, 0]
    assert votes([*views[:2], (0, 0.6), views[3]]) == [2, 1, 0, 0]


def test_a_tie_that_no_view_breaks_goes_to_the_likelier_class(votes):
    assert votes([(1, 0.9), (0, 0.8), (2, 0.6), (3, 0.5)]) == [1, 2, 0, 0]
    assert votes([(0, 0.8), (1, 0.9)], selection=1.0) == [1, 2, 0, 0]
