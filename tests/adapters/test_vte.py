# SPDX-License-Identifier: Apache-2.0
"""VTE: the mean of all views, and of the confident ones."""

import pytest
import torch
from tta_bench.adapters.vte import Vte


def test_it_averages_the_confident_views(recorded, texts, unit, watch):
    views, source = unit(5, 8, 8, seed=5), recorded(texts)
    _, _, every = watch(Vte(views=8, selection=1.0), source, views, 5)
    torch.testing.assert_close(every, 100 * views.mean(1) @ texts.T)
    _, _, one = watch(Vte(views=8, selection=0.0), source, views, 5)
    p = (100 * views @ texts.T).softmax(-1)
    surest = (-(p * p.log()).sum(-1)).argmin(-1)
    torch.testing.assert_close(one, 100 * views[torch.arange(5), surest] @ texts.T)


@pytest.mark.parametrize(
    ("views", "selection", "kept"), [(64, 0.1, 6), (16, 0.1, 1), (8, 0.1, 1), (16, 0.3, 4)]
)
def test_the_number_of_views_kept_is_cut_off_but_never_0(views, selection, kept):
    from tta_bench.losses import least

    assert least(torch.rand(2, views), selection).shape == (2, kept)


def test_of_equal_views_the_first_is_kept():
    from tta_bench.losses import least

    assert least(torch.tensor([[1.0, 0.5, 0.5, 0.5]]), 0.5).tolist() == [[1, 2]]
