# SPDX-License-Identifier: Apache-2.0
"""RDumb: ETA between fresh starts."""

import pytest
import torch
from tta_bench.adapters.eta import Eta
from tta_bench.adapters.rdumb import RDumb

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.testing import tiny_images

SETTINGS = {"margin": 1.0, "redundancy": 2.0}


def test_it_keeps_its_promises():
    assert not [result for result in check_method(RDumb()) if result.bad]


def test_it_is_eta_that_starts_afresh(source, run, same):
    batches = [tiny_images(source, 6, seed) for seed in range(5)]
    states, scores = run(RDumb(**SETTINGS, every=2), source, batches)
    expected = [run(Eta(**SETTINGS), source, batches[i : i + 2])[1] for i in (0, 2, 4)]
    assert torch.equal(torch.cat(scores), torch.cat([one for part in expected for one in part]))
    assert [same(states[0], state) for state in states] == [True, False, True, False, True, False]


def test_batches_without_a_kept_sample_are_counted(source, batches, run):
    states, _ = run(RDumb(margin=0.0, every=10), source, batches)
    assert [int(state["batches"]) for state in states] == [0, 1, 2, 3]


def test_an_interval_below_one_batch_is_refused():
    with pytest.raises(BadInputError, match="every"):
        RDumb(every=0)
