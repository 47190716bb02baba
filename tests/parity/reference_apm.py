# SPDX-License-Identifier: Apache-2.0
"""A plain APM student of torch modules, and golden folders made with it: no rewrite, no batching, torch.optim."""

import json
import math

import numpy as np
import torch
from torch import nn


def code_table(rows, columns, dim):
    """One sine code per location, written as the definition reads; float32."""
    half = dim // 2
    rate = torch.exp(torch.arange(0, half, 2).float() * -(math.log(10000.0) / half))
    table = torch.zeros(rows * columns, dim)
    for row in range(rows):
        for column in range(columns):
            for start, position in ((0, column), (half, row)):
                table[row * columns + column, start : start + half : 2] = torch.sin(position * rate)
                table[row * columns + column, start + 1 : start + half : 2] = torch.cos(position * rate)
    return table


class PlainStudent(nn.Module):
    """The network as published, at other sizes."""

    def __init__(self, image, patch, grid, code, widths, feature, heads):
        super().__init__()
        column = (image[0] // patch) * (image[1] // patch)
        self.conv1 = nn.Conv2d(3, 1, patch, patch)
        self.fc1 = nn.Linear(column + code, widths[0])
        self.fc4 = nn.Linear(widths[0], widths[1])
        self.fc5 = nn.Linear(widths[1], widths[2])
        self.feat_proj_head = nn.Linear(widths[2], feature)
        self.little_query = nn.Parameter(torch.zeros(feature))
        self.little_self_attention = nn.MultiheadAttention(feature, heads, batch_first=True)
        self.inner, self.outer = code_table(*grid, code), code_table(*grid, feature)

    def locations(self, image):
        column = self.conv1(image[None]).flatten()
        codes = self.inner.to(column)
        x = torch.cat([column.expand(len(codes), -1), codes], dim=1)
        for layer in (self.fc1, self.fc4, self.fc5):
            x = torch.relu(layer(x))
        return self.feat_proj_head(x)

    def forward(self, image):
        x = self.locations(image)
        x = (x + self.outer.to(x))[None]
        return self.little_self_attention(self.little_query[None, None], x, x, need_weights=False)[0][0, 0]


def train(model, image, target, optimizer, updates, *, clear=True, scheduler=None):
    """Losses and predictions of the forward passes after 0 to ``updates`` updates, and the first gradient."""
    losses, predictions, first = [], [], None
    optimizer.zero_grad()
    for k in range(updates + 1):
        predicted = model(image)
        loss = ((predicted - target) ** 2).mean()
        losses.append(loss.item())
        predictions.append(predicted.detach().clone())
        if k == updates:
            break
        if clear:
            optimizer.zero_grad()
        loss.backward()
        first = first or {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return torch.tensor(losses, dtype=torch.float64), torch.stack(predictions), first


def groups(adam, lrs):
    """By group, what gives the optimiser of the next image: a fresh one, one for all, or uncleared gradients."""
    carried = adam(lrs[0])
    scheduler = torch.optim.lr_scheduler.StepLR(carried, 5, 0.1)
    return {
        **{f"lr{lr}": lambda lr=lr: (adam(lr), {}) for lr in lrs},
        "quirk_carry_adam_step5": lambda: (carried, {"scheduler": scheduler}),
        "quirk_gradaccum_noscaler": lambda: (adam(lrs[0]), {"clear": False}),
    }


def write_folder(
    folder, *, image, patch, grid, code, widths, feature, heads, updates, betas, lrs, seed, count=2
):
    """Write a golden folder of family apm with other sizes, rates and seeds."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, std=1.0):
        return torch.randn(*shape, generator=generator) * std

    model = PlainStudent(image, patch, grid, code, widths, feature, heads).double()
    text = normal(4, feature)
    arrays = {"text": text}
    starts, images, targets = [], [], []
    for i in range(count):
        start = {name: normal(*p.shape, std=0.1) for name, p in model.named_parameters()}
        images.append(normal(3, *image).double())
        targets.append(normal(feature).double())
        arrays |= {f"img{i}": images[i].float(), f"target{i}": targets[i].float()}
        arrays |= {f"w{i}/{name}": tensor for name, tensor in start.items()}
        starts.append(start)

    def load(i):
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(starts[i][name])

    def adam(lr):
        return torch.optim.Adam(model.parameters(), lr=lr, betas=betas, eps=1e-7)

    def record(group, i, losses, predictions):
        arrays[f"{group}/loss{i}"], arrays[f"{group}/pred{i}"] = losses, predictions
        units = [nn.functional.normalize(x.double(), dim=-1) for x in (predictions, text)]
        arrays[f"{group}/cos{i}"] = units[0] @ units[1].T

    for group, options in groups(adam, lrs).items():
        for i in range(count):
            load(i)
            optimizer, rest = options()
            losses, predictions, first = train(model, images[i], targets[i], optimizer, updates, **rest)
            record(group, i, losses, predictions)
            arrays |= {f"grad0_{i}/{name}": grad.float() for name, grad in first.items()}
            final = {name: p.detach().float().clone() for name, p in model.named_parameters()}
            arrays |= {f"{group}/final{i}/{name}": tensor for name, tensor in final.items()}
    np.savez(folder / "apm.npz", **{name: array.numpy() for name, array in arrays.items()})
    manifest = {
        "family": "apm",
        "dims": {"hidden": len(model.fc1.weight), "h": grid[0], "w": grid[1], "heads": heads, "patch": patch},
        "adam": {"betas": betas, "eps": 1e-7, "weight_decay": 0, "lrs": lrs},
        "format": {"quirk_lr": f"all runs use lr {lrs[0]}"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
