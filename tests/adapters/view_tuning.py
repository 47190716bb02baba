# SPDX-License-Identifier: Apache-2.0
"""What tests of the methods that tune on views share: episodes on a tiny CLIP-like model, and TPT by hand."""

import torch
from torch.nn import functional as F

from tta_bench.losses import marginal_entropy
from tta_bench.testing import tiny_clip, tiny_inputs, tiny_task

VIEWS = 8


def episode(method, seed=0, n=1, source=None):
    """Return a float64 model, the first state and inputs of a method."""
    source = source or tiny_clip(dtype=torch.float64)
    state = method.init(source, tiny_task(source, method))
    return source, state, tiny_inputs(source, n, method=method, seed=seed)


def adapted(method, seed=0, source=None):
    """Return the tuned tensors and the logits of one image."""
    source, state, inputs = episode(method, seed, source=source)
    after = method.adapt(source, state, inputs)
    with torch.no_grad():
        return after.state["params"], method.predict(source, after.state, inputs), source, inputs


def by_hand(source, inputs, term=lambda text: 0.0, lr=5e-3, share=0.5, steps=1):
    """Tune the context imperatively, with torch's own AdamW, and return it with the logits of view 0."""
    context = source.text.context()
    ctx = context.ctx.clone().requires_grad_()
    optimizer = torch.optim.AdamW([ctx], lr=lr, weight_decay=0.01)
    views = F.normalize(inputs.view_features[0], dim=-1)
    chosen = None
    for _ in range(steps):
        text = F.normalize(context.encode(ctx), dim=-1)
        logits = source.text.scale * views @ text.T
        if chosen is None:
            entropies = torch.distributions.Categorical(logits=logits.detach()).entropy()
            chosen = sorted(range(len(views)), key=lambda v: (float(entropies[v]), v))[
                : int(share * len(views))
            ]
        loss = marginal_entropy(logits[chosen]) + term(text)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return ctx.detach(), source.text.scale * views[:1] @ F.normalize(context.encode(ctx), dim=-1).T


def class_features(source, params):
    """Return the unit class features under a tuned context."""
    with torch.no_grad():
        return F.normalize(source.text.context().encode(params["ctx"]), dim=-1)
