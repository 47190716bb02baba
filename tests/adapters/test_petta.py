# SPDX-License-Identifier: Apache-2.0
"""PeTTA: class moments of the source, the drift that it measures, and the update that follows from it."""

import pytest
import torch
from tta_bench.adapters.petta import Petta

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError
from tta_bench.testing import tiny_task


@pytest.mark.parametrize(
    "method", [Petta(), Petta(loss="ce", regulariser="l2", capacity=5)], ids=["sce", "ce"]
)
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


def test_class_moments_are_those_of_the_predicted_classes(source):
    method = Petta()
    task = tiny_task(source, method, batch_size=7)
    state = method.init(source, task)
    images = task.source.batch(0, len(task.source))[0]
    labels, features = source.logits(images).argmax(1), source.encode(images)
    assert len(labels.unique()) > 1
    for c in range(source.num_classes):
        own = features[labels == c]
        assert bool(state["known"][c]) == (len(own) > 1)
        if len(own) > 1:
            torch.testing.assert_close(state["source_mean"][c], own.mean(0))
            torch.testing.assert_close(state["source_var"][c], own.var(0), rtol=1e-3, atol=1e-6)


def drifted(source, method, shift):
    state = method.init(source, tiny_task(source, method))
    return {**state, "prototypes": state["prototypes"] + shift * state["source_var"].sqrt()}


def test_drift_makes_the_teacher_slower_and_the_student_hold_on(source, batches, run):
    method = Petta(lr=0.01, alpha_0=0.5)
    state = drifted(source, method, 0.0)
    labels = source.logits(batches[0]).argmax(1)
    assert bool(state["known"][labels].any())
    gamma, prototypes = method._drift(state, source.encode(batches[0]), labels)
    assert float(gamma) == 0
    known = next(c for c in labels.tolist() if state["known"][c])
    expected = 0.95 * state["prototypes"][known] + 0.05 * source.encode(batches[0])[labels == known].mean(0)
    torch.testing.assert_close(prototypes[known], expected)
    far, _ = method._drift(drifted(source, method, 2.0), source.encode(batches[0]), labels)
    torch.testing.assert_close(far, torch.tensor(1 - torch.exp(torch.tensor(-4.0)).item()), rtol=0.02, atol=0)


def test_classes_that_the_source_never_predicted_say_nothing(source, batches):
    method = Petta()
    state = {**drifted(source, method, 2.0), "known": torch.zeros(source.num_classes, dtype=torch.bool)}
    gamma, prototypes = method._drift(state, source.encode(batches[0]), source.logits(batches[0]).argmax(1))
    assert float(gamma) == 0
    assert torch.equal(prototypes, state["prototypes"])


def test_fixed_rates_leave_the_prototypes(source, batches, run):
    states, _ = run(Petta(adaptive_alpha=False, adaptive_lambda=False), source, batches)
    assert torch.equal(states[-1]["prototypes"], states[0]["prototypes"])
    states, _ = run(Petta(), source, batches)
    assert not torch.equal(states[-1]["prototypes"], states[0]["prototypes"])


def test_the_three_networks_keep_statistics_of_their_own(source, batches, run):
    states, scores = run(Petta(lr=0.01), source, batches[:1])
    torch.testing.assert_close(scores[0], source.logits(batches[0]))
    first = states[0]["stats"]["norm.running_mean"]
    student, teacher, anchor = (
        states[1][f"{part}stats"]["norm.running_mean"] for part in ("", "teacher_", "anchor_")
    )
    assert torch.equal(teacher, anchor)
    assert not torch.equal(student, teacher)
    assert not torch.equal(teacher, first)


@pytest.mark.parametrize(
    "values", [{"capacity": 0}, {"samples": 0}, {"alpha_0": 2.0}, {"anchor": -1.0}, {"regulariser": "l1"}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        Petta(**values)
