# SPDX-License-Identifier: Apache-2.0
"""Plain TENT and BatchNorm adaptation of torch modules, and golden folders made with them."""

import copy
import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Tiny(nn.Module):
    def __init__(self, norm, widths, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, padding=1, bias=False)
        self.bn1, self.bn2 = (nn.BatchNorm2d(w) if norm == "batch" else nn.GroupNorm(4, w) for w in widths)
        self.fc = nn.Linear(widths[1], classes)

    def forward(self, x):
        x = F.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(torch.relu(self.bn2(self.conv2(x))).mean((2, 3)))


def norms(model):
    return [model.bn1, model.bn2]


def run_tent(model, batches, optimizer, steps):
    """Logits of each batch before its last update; the model is changed."""
    model.eval()
    for norm in norms(model):
        norm.train()
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    optimizer = optimizer([p for norm in norms(model) for p in norm.parameters()])
    logits = []
    for x in batches:
        for _ in range(steps):
            z = model(x)
            p = z.softmax(1)
            optimizer.zero_grad()
            (-(p * p.log()).sum(1)).mean().backward()
            optimizer.step()
        logits.append(z.detach())
    return torch.stack(logits)


@torch.no_grad()
def run_ema(model, batches):
    logits = []
    for x in batches:
        model.train()(x)
        logits.append(model.eval()(x))
    return torch.stack(logits)


def write_folder(folder, seed):
    """Write a golden folder of family online with other widths, classes, batches and rates."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = {name: Tiny(name, (8, 12), 7) for name in ("batch", "group")}
        for model in models.values():
            for p in model.parameters():
                nn.init.normal_(p, 0.3, 0.5)
        models["batch"].train()(torch.rand(40, 3, 12, 20))
        x = torch.rand(3, 9, 3, 12, 20)
    weights = {f"tiny{n}/{k}": v for n, m in models.items() for k, v in m.state_dict().items()}
    sgd = {"method": "SGD", "lr": 0.02, "momentum": 0.8, "nesterov": False, "wd": 0.01, "dampening": 0.0}
    adam = {"method": "Adam", "lr": 0.004, "beta1": 0.8, "beta2": 0.99, "eps": 1e-8}
    optimizers = {
        "sgd": lambda ps: torch.optim.SGD(ps, 0.02, momentum=0.8, weight_decay=0.01),
        "adam": lambda ps: torch.optim.Adam(ps, 0.004, betas=(0.8, 0.99)),
    }
    methods = {"tent": {}, "norm_ema": {}, "unheard_of": {"tinybatch": {"model": "tinybatch"}}}
    found = {"tent": {}, "norm_ema": {}}
    for norm in models:
        for kind, described in (("sgd", sgd), ("adam", adam)):
            model, case = copy.deepcopy(models[norm]), f"tiny{norm}_{kind}"
            logits = run_tent(model, x, optimizers[kind], 2)
            methods["tent"][case] = {
                "model": f"tiny{norm}",
                "hyperparameters": {"optimizer": described, "steps": 2},
            }
            found["tent"] |= {
                f"{case}__logits": logits,
                f"{case}__logits_after_reset": logits,
                f"{case}__param__bn2.bias": model.bn2.bias.detach(),
                f"{case}__param__ALL_sum_student": sum(p.detach().double().sum() for p in model.parameters()),
            }
    methods["norm_ema"]["tinybatch_BROKEN"] = {"model": "tinybatch"}
    methods["norm_ema"]["tinybatch"] = {"model": "tinybatch"}
    found["norm_ema"]["tinybatch__logits"] = run_ema(copy.deepcopy(models["batch"]), x)
    found["norm_ema"]["tinybatch_BROKEN__logits"] = found["norm_ema"]["tinybatch__logits"] + 1
    for name, arrays in {**found, "weights": weights, "inputs": {"x": x}}.items():
        np.savez(folder / f"{name}.npz", **{key: np.asarray(value) for key, value in arrays.items()})
    (folder / "manifest.json").write_text(json.dumps({"family": "online", "methods": methods}))
