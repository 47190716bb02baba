# SPDX-License-Identifier: Apache-2.0
"""T3A: supports, their pruning, and the prototypes that they make."""

import pytest
import torch
from tta_bench.adapters.t3a import T3A

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.losses import entropy
from tta_bench.testing import tiny_images


@pytest.mark.parametrize("method", [T3A(), T3A(keep=-1), T3A(keep=1)], ids=repr)
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


def test_the_state_and_the_logits_are_those_of_plain_lists(source, batches, run):
    states, scores = run(T3A(keep=2), source, batches)
    rows = source.head_weight()
    logits = source.head(rows)
    pool = [(float(entropy(z)), int(z.argmax()), row) for z, row in zip(logits, rows, strict=True)]
    for images, found, state in zip(batches, scores, states[1:], strict=True):
        seen = source.forward(images)
        pool += [
            (float(entropy(z)), int(z.argmax()), f) for z, f in zip(seen.logits, seen.features, strict=True)
        ]
        pool = [
            one for c in range(5) for one in sorted((p for p in pool if p[1] == c), key=lambda p: p[0])[:2]
        ]
        assert torch.allclose(torch.stack([one[2] for one in pool]), state["supports"])
        assert [one[1] for one in pool] == state["labels"].tolist()
        prototypes = torch.zeros(5, source.dim)
        for _, label, support in pool:
            prototypes[label] += support / support.norm()
        prototypes = torch.nn.functional.normalize(prototypes, dim=1)
        assert torch.allclose(found, seen.features @ prototypes.T, atol=1e-4)


@pytest.mark.parametrize(("quirk", "count"), [(False, 5 + 24), (True, None)])
def test_minus_one_keeps_every_support_unless_the_quirk_is_asked_for(source, batches, run, quirk, count):
    states, _ = run(T3A(keep=-1, reference_quirk=quirk), source, batches)
    kept = len(states[-1]["labels"])
    assert kept == count if count else kept < 5 + 24


def test_a_batch_enters_before_it_is_predicted(source, run):
    images = tiny_images(source, 1, 3)
    states, _ = run(T3A(keep=-1), source, [images])
    feature = source.forward(images).features[0]
    assert any(torch.equal(row, feature) for row in states[1]["supports"])


@pytest.mark.parametrize("keep", [0, -2])
def test_a_number_of_supports_out_of_range_is_refused(keep):
    with pytest.raises(BadInputError, match="keep"):
        T3A(keep=keep)
