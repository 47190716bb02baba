# SPDX-License-Identifier: Apache-2.0
"""MTA: the mode leaves outliers out, stays finite for equal views, and refuses a single one."""

import pytest
import torch
from tta_bench.adapters.mta import Mta

from tta_bench.errors import BadInputError


def test_the_mode_is_that_of_the_cluster(recorded, texts, unit, watch):
    near = texts[0] + 0.2 * unit(14, 8, seed=6)
    views = torch.cat([near, -near[:2]])
    views = (views / views.norm(dim=-1, keepdim=True)).unsqueeze(0)
    _, evidence, scores = watch(Mta(views=16), recorded(texts), views)
    assert evidence["mode"][0] @ texts[0] > 0.9
    assert evidence["inlierness"][0, 14:].sum() < 1e-3
    assert scores.argmax() == 0
    torch.testing.assert_close(evidence["mode"].norm(dim=-1), torch.ones(1, dtype=torch.float64))


def test_equal_views_are_their_own_mode(recorded, texts, unit, watch):
    views = unit(1, 1, 8, seed=7).expand(1, 6, 8)
    _, evidence, _ = watch(Mta(views=6), recorded(texts), views)
    torch.testing.assert_close(evidence["mode"], views[:, 0])


def test_images_do_not_depend_on_each_other(recorded, texts, unit, watch):
    views, source = unit(4, 9, 8, seed=8), recorded(texts)
    whole, alone = (watch(Mta(views=9), source, views, size)[2] for size in (4, 1))
    torch.testing.assert_close(whole, alone, rtol=0, atol=1e-12)


def test_one_view_has_no_density():
    with pytest.raises(BadInputError, match="views must be 2 or more"):
        Mta(views=1)
