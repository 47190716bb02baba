# SPDX-License-Identifier: Apache-2.0
"""TDA written by hand, image by image: on tensors that are changed in place, and on lists as it was published."""

import math

import torch
from torch.nn import functional as F

ALPHA, BETA, NEGATIVE_ALPHA, NEGATIVE_BETA = 2.0, 5.0, 0.117, 1.0
LOW, HIGH, MASK_LOW, MASK_HIGH = 0.2, 0.5, 0.03, 1.0
SCALE = 100.0


class TensorLoop:
    """Two caches in tensors of fixed shapes; the masks of the negative one are made when an item enters.

    Args:
        text: (K, D) unit rows.
        positive: Capacity of each class.
        negative: Likewise.
    """

    def __init__(self, text, positive=3, negative=2):
        self.text, classes, dim = text, *text.shape
        self.unit = math.log2(classes)
        self.keys = [text.new_zeros(classes, size, dim) for size in (positive, negative)]
        self.entropy = [text.new_full((classes, size), torch.inf) for size in (positive, negative)]
        self.masks = text.new_zeros(classes, negative, classes)

    def fill(self, state):
        """Take the items over from two banks, see `tta_bench.adapters._bank`."""
        for which, name in enumerate(("positive", "negative")):
            bank = state[name]
            free = torch.arange(bank["entropy"].shape[1]) >= bank["count"][:, None]
            self.keys[which] = bank["keys"].clone()
            self.entropy[which] = bank["entropy"].masked_fill(free, torch.inf)
        maps = state["negative"]["maps"]
        self.masks = ((maps > MASK_LOW) & (maps < MASK_HIGH)).to(maps.dtype)

    def put(self, which, label, feature, entropy, mask=None):
        row = self.entropy[which][label]
        place = int((row <= entropy).sum())
        if place == len(row):
            return
        tables = [(self.keys[which], feature), (self.entropy[which], entropy)]
        for table, value in tables if mask is None else [*tables, (self.masks, mask)]:
            table[label, place + 1 :] = table[label, place:-1].clone()
            table[label, place] = value

    def step(self, features):
        return torch.stack([self.one(F.normalize(feature, dim=-1)) for feature in features])

    def one(self, x):
        logits = SCALE * self.text @ x
        p = logits.softmax(-1)
        entropy, label = torch.special.entr(p).sum(), int(logits.argmax())
        self.put(0, label, x, entropy)
        if LOW < float(entropy) / self.unit < HIGH:
            self.put(1, label, x, entropy, ((p > MASK_LOW) & (p < MASK_HIGH)).to(p.dtype))
        near = torch.exp(-BETA * (1 - self.keys[0] @ x)) * (self.entropy[0] < torch.inf)
        far = torch.exp(-NEGATIVE_BETA * (1 - self.keys[1] @ x)) * (self.entropy[1] < torch.inf)
        against = far.flatten() @ self.masks.flatten(0, 1)
        return logits + ALPHA * near.sum(1) - NEGATIVE_ALPHA * against


class PublishedCache:
    """Two dictionaries of lists, joined into matrices again for every image, as the reference does.

    Args:
        text: (K, D) unit rows.
    """

    def __init__(self, text):
        self.text, self.unit = text, math.log2(len(text))
        self.positive, self.negative = {}, {}

    def fill(self, state):
        """Take the items over from two banks, see `tta_bench.adapters._bank`."""
        for cache, name in ((self.positive, "positive"), (self.negative, "negative")):
            names = [part for part in ("keys", "entropy", "maps") if part in state[name]]
            for label, count in enumerate(state[name]["count"].tolist()):
                for slot in range(count):
                    x, entropy, *p = (state[name][part][label, slot] for part in names)
                    cache.setdefault(label, []).append((x[None], float(entropy), *(one[None] for one in p)))

    def put(self, cache, label, item, capacity):
        items = cache.setdefault(label, [])
        if len(items) < capacity:
            items.append(item)
        elif item[1] < items[-1][1]:
            items[-1] = item
        items.sort(key=lambda one: one[1])

    def read(self, x, cache, alpha, beta, masked):
        keys, values = [], []
        for label in sorted(cache):
            for item in cache[label]:
                keys.append(item[0])
                values.append(item[2] if masked else label)
        keys = torch.cat(keys).T
        if masked:
            maps = torch.cat(values)
            values = ((maps > MASK_LOW) & (maps < MASK_HIGH)).to(x.dtype)
        else:
            values = F.one_hot(torch.tensor(values), len(self.text)).to(x.dtype)
        return alpha * torch.exp(-beta * (1 - x @ keys)) @ values

    def step(self, features):
        return torch.cat([self.one(F.normalize(feature[None], dim=-1)) for feature in features])

    def one(self, x):
        logits = SCALE * x @ self.text.T
        p = logits.softmax(-1)
        entropy, label = float(torch.special.entr(p).sum()), int(logits.argmax())
        self.put(self.positive, label, (x, entropy), 3)
        if LOW < entropy / self.unit < HIGH:
            self.put(self.negative, label, (x, entropy, p), 2)
        logits = logits + self.read(x, self.positive, ALPHA, BETA, masked=False)
        if self.negative:
            logits = logits - self.read(x, self.negative, NEGATIVE_ALPHA, NEGATIVE_BETA, masked=True)
        return logits
