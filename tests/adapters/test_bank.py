# SPDX-License-Identifier: Apache-2.0
"""A bank of remembered features: the rules of admission, and batches that equal one image after another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tta_bench.adapters._bank import (
    Bank,
    Item,
    always_over_the_worst,
    by_entropy,
    empty,
    latest,
    over_the_worst,
)

RULES = (by_entropy, over_the_worst, always_over_the_worst, latest)
LEVELS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5]), max_size=12)


def rows_after(rule, entropies, capacity=3):
    row = []
    for column, entropy in enumerate(entropies):
        row = rule(row, Item(entropy, column), capacity)
    return row


@given(LEVELS)
def test_by_entropy_keeps_the_first_of_a_stable_sort(entropies):
    expected = sorted(range(len(entropies)), key=lambda column: entropies[column])[:3]
    assert [item.column for item in rows_after(by_entropy, entropies)] == expected


@given(LEVELS)
def test_over_the_worst_writes_where_the_largest_entropy_is(entropies):
    slots = []
    for column, entropy in enumerate(entropies):
        if len(slots) < 3:
            slots.append((entropy, column))
        else:
            worst = max(one for one, _ in slots)
            if entropy < worst:
                slots[[one for one, _ in slots].index(worst)] = (entropy, column)
    assert [tuple(item) for item in rows_after(over_the_worst, entropies)] == slots


@given(LEVELS)
def test_latest_keeps_the_newest_in_order(entropies):
    assert [item.column for item in rows_after(latest, entropies)] == list(range(len(entropies)))[-3:]


def test_always_over_the_worst_lets_a_worse_one_in():
    found = rows_after(always_over_the_worst, [0.5, 1.0, 0.2, 3.0])
    assert [item.column for item in found] == [0, 3, 2]
    assert [item.column for item in rows_after(over_the_worst, [0.5, 1.0, 0.2, 3.0])] == [0, 1, 2]


def passed(rule, labels, entropies, keys, size):
    """Run a stream through a bank in batches: the last state, and the products of each image with what it meets."""
    state, products = empty(4, 2, keys, keys=keys.shape[1]), []
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        bank = Bank(state, len(labels[part]))
        for image, (label, entropy) in enumerate(zip(labels[part], entropies[part].tolist(), strict=True)):
            bank.admit(image, label, entropy, rule)
        products.append(bank.cosines(bank.table(), keys[part], keys[part]))
        state = bank.after(keys=keys[part], entropy=entropies[part])
    return state, torch.cat(products)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=12))
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_batch_meets_the_bank_as_its_images_do_alone(rule, stream):
    labels, entropies = [label for label, _ in stream], torch.tensor([entropy for _, entropy in stream])
    keys = torch.arange(len(stream) * 3, dtype=torch.float32).view(-1, 3) + 1
    alone, whole = (passed(rule, labels, entropies, keys, size) for size in (1, len(stream)))
    assert all(torch.equal(alone[0][name], whole[0][name]) for name in alone[0])
    assert torch.equal(alone[1], whole[1])


def test_a_state_in_which_nothing_is_admitted_is_handed_back():
    keys = torch.ones(1, 3)
    state, _ = passed(by_entropy, [0, 0], torch.tensor([0.1, 0.2]), keys.expand(2, 3), 1)
    bank = Bank(state, 1)
    assert not bank.admit(0, 0, 5.0, by_entropy)
    assert bank.after(keys=keys, entropy=torch.tensor([5.0])) is state


def test_what_is_lent_is_met_by_one_image_and_forgotten():
    keys = torch.eye(3)
    bank = Bank(empty(2, 1, keys, keys=3), 3)
    bank.lend(1, 0, [Item(0.0, bank.first + 3), Item(0.0, bank.first + 4)])
    table = bank.table(extra=1)
    assert table[1, 0].tolist() == [bank.first + 3, bank.first + 4]
    assert (table[[0, 2]] == -1).all()
    own = torch.stack([2 * torch.eye(3)[:2]] * 3)
    assert bank.cosines(table, keys, keys, own)[1, 0].tolist() == [0, 2]
    assert not bank.changed
