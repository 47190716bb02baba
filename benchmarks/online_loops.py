# SPDX-License-Identifier: Apache-2.0
"""Hand-written adaptation loops in the imperative style, with modules changed in place by ``torch.optim``.

Each makes the same updates as the method of its name with the hyper-parameters in `SETTINGS`, which let every sample
through the filters: a network with random weights is sure of nothing, and a loop that skips its steps costs nothing.
"""

import copy
import math

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from tta_bench.augment import Jitter, augment, draw_jitter

VIEWS = 4  # of CoTTA: 32, as published, would hide the cost of the updates behind forward passes
SETTINGS = {
    "tent": {},
    "eata": {"margin": 4.0, "redundancy": 2.0, "samples": 128},
    "sar": {"margin": 4.0, "recovery": 0.0},
    "cotta": {"confidence": 1.0, "views": VIEWS},
}


class ResNet26(nn.Module):
    """The residual network of CIFAR with 26 layers: a stem, three stages of four basic blocks, a linear head.

    Args:
        classes: Width of the head.

    Source: He et al., arXiv:1512.03385, section 4.2 with n = 4; shortcuts that change the shape are projections.
    """

    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.stage1, self.stage2, self.stage3 = self.stage(16, 16), self.stage(16, 32), self.stage(32, 64)
        self.fc = nn.Linear(64, classes)

    @staticmethod
    def stage(inside, outside):
        """Return four blocks; where the width changes the first one halves the size."""
        stride = 1 if inside == outside else 2
        shortcut = None
        if stride > 1:
            shortcut = nn.Sequential(
                nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
            )
        first = BasicBlock(inside, outside, stride, shortcut)
        return nn.Sequential(first, *(BasicBlock(outside, outside) for _ in range(3)))

    def forward(self, x):
        """Return logits (N, K) of normalised images (N, 3, 32, 32)."""
        return self.fc(self.stage3(self.stage2(self.stage1(self.stem(x)))).mean((2, 3)))


def certainty_loss(logits):
    """Return the entropy of each row's prediction, in nats."""
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1)


def batch_statistics(module):
    """Let every BatchNorm layer normalise by the batch and keep no statistics."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
    return module


class Loop:
    """A network, its normalisation, the tensors that an optimiser moves, and one step.

    Args:
        network: The network, taken over.
        mean: Per-channel mean of the images.
        std: Per-channel deviation.
    """

    def __init__(self, network, mean, std):
        self.network = batch_statistics(network).requires_grad_(False)
        self.mean, self.std = (torch.tensor(values).view(1, -1, 1, 1) for values in (mean, std))
        self.params = [p.requires_grad_() for p in self.chosen()]
        self.optimizer = self.make_optimizer()

    def chosen(self):
        """Return the tensors that are adapted: the affine ones of the BatchNorm layers."""
        layers = [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]
        return [p for layer in layers for p in (layer.weight, layer.bias)]

    def make_optimizer(self):
        """Return the optimiser."""
        return torch.optim.Adam(self.params, lr=1e-3)

    def logits(self, images):
        """Return the logits of images in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    def descend(self, loss):
        """Take one step on a loss."""
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def held(self):
        """Return every tensor that lives on between two steps."""
        moments = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.network.parameters(), *self.network.buffers(), *moments]


class Tent(Loop):
    """Entropy of all samples."""

    def step(self, images):
        logits = self.logits(images)
        self.descend(certainty_loss(logits).mean())
        return logits.detach()


class BlendedNorm(nn.Module):
    """A BatchNorm layer that normalises by stored and batch statistics, without a gradient through them.

    Args:
        old: The layer, whose tensors it takes over.
    """

    def __init__(self, old):
        super().__init__()
        self.weight, self.bias, self.eps = old.weight, old.bias, old.eps
        self.drop, self.act = getattr(old, "drop", None), getattr(old, "act", None)
        self.register_buffer("mean", old.running_mean)
        self.register_buffer("var", old.running_var)

    def forward(self, x):
        with torch.no_grad():
            var, mean = torch.var_mean(x, (0, 2, 3))
            mean, var = (16 / 17 * old + 1 / 17 * new for old, new in ((self.mean, mean), (self.var, var)))
        x = nn.functional.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)
        x = x if self.drop is None else self.drop(x)
        return x if self.act is None else self.act(x)


def blended(module):
    """Replace every BatchNorm layer below a module."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, BlendedNorm(child))
        else:
            blended(child)
    return module


class Memo:
    """Entropy of the mean prediction over views of one image, from the source weights each time.

    Args:
        network: From normalised images to logits, taken over.
        mean: Per-channel mean of the images.
        std: Per-channel deviation.
    """

    def __init__(self, network, mean, std):
        self.network, self.mean, self.std = blended(network).requires_grad_(False), mean, std
        named = self.network.named_parameters()
        self.params = [p.requires_grad_() for name, p in named if name.endswith(("weight", "bias"))]
        self.start = [p.detach().clone() for p in self.params]
        self.optimizer = torch.optim.SGD(self.params, lr=5e-3)

    def logits(self, images):
        return self.network((images - self.mean) / self.std)

    def step(self, image, views):
        """Return the logits (1, K) of an image (1, 3, side, side), adapted to its views (V, 3, side, side)."""
        with torch.no_grad():
            for p, start in zip(self.params, self.start, strict=True):
                p.copy_(start)
        each = self.logits(views).log_softmax(1)
        mean = each.logsumexp(0) - math.log(len(views))
        (-(mean.exp() * mean).sum()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            return self.logits(image)

    def held(self):
        return [*self.network.parameters(), *self.network.buffers(), *self.start]


class Eata(Loop):
    """Weighted entropy of reliable samples unlike the average, with a penalty on important tensors."""

    def __init__(self, network, mean, std, source_batches):
        super().__init__(network, mean, std)
        self.average, self.margin = None, SETTINGS["eata"]["margin"] * math.log(10)
        fisher = [torch.zeros_like(p) for p in self.params]
        for images in source_batches:
            logits = self.logits(images)
            nn.functional.cross_entropy(logits, logits.argmax(1)).backward()
            fisher = [total + p.grad.square() for total, p in zip(fisher, self.params, strict=True)]
            self.optimizer.zero_grad()
        start = [p.detach().clone() for p in self.params]
        self.anchors = [(f / len(source_batches), s) for f, s in zip(fisher, start, strict=True)]

    def step(self, images):
        logits = self.logits(images)
        each = certainty_loss(logits)
        kept = each.detach() < self.margin
        if self.average is not None:
            alike = torch.cosine_similarity(self.average[None], logits.detach().softmax(1))
            kept &= alike.abs() < SETTINGS["eata"]["redundancy"]
        chosen = each[kept]
        loss = (torch.exp(self.margin - chosen.detach()) * chosen).mean()
        for p, (weight, start) in zip(self.params, self.anchors, strict=True):
            loss = loss + (weight * (p - start) ** 2).sum()
        self.descend(loss)
        seen = logits.detach()[kept].softmax(1).mean(0)
        self.average = seen if self.average is None else 0.9 * self.average + 0.1 * seen
        return logits.detach()

    def held(self):
        return [*super().held(), *(tensor for pair in self.anchors for tensor in pair)]


class Sar(Loop):
    """Sharpness-aware entropy of reliable samples, below the last stage."""

    average = None

    def chosen(self):
        last = set(self.network.stage3.modules())
        layers = [m for m in self.network.modules() if isinstance(m, nn.BatchNorm2d) and m not in last]
        return [p for layer in layers for p in (layer.weight, layer.bias)]

    def make_optimizer(self):
        return torch.optim.SGD(self.params, lr=1e-3, momentum=0.9)

    def step(self, images):
        margin = SETTINGS["sar"]["margin"] * math.log(10)
        logits = self.logits(images)
        each = certainty_loss(logits)
        kept = each.detach() < margin
        each[kept].mean().backward()
        with torch.no_grad():
            length = torch.stack([p.grad.norm() for p in self.params]).norm()
            moves = [0.05 / (length + 1e-12) * p.grad for p in self.params]
            for p, move in zip(self.params, moves, strict=True):
                p.add_(move)
        self.optimizer.zero_grad()
        raised = certainty_loss(self.logits(images))
        loss = raised[kept & (raised.detach() < margin)].mean()
        loss.backward()
        with torch.no_grad():
            for p, move in zip(self.params, moves, strict=True):
                p.sub_(move)
        self.optimizer.step()
        self.optimizer.zero_grad()
        value = float(loss.detach())
        self.average = value if self.average is None else 0.9 * self.average + 0.1 * value
        return logits.detach()


class Cotta(Loop):
    """Averaged teacher over views, and random restoration of the source weights.

    Augmentation is the library's own, so that the updates alone are compared.
    """

    def __init__(self, network, mean, std):
        super().__init__(network, mean, std)
        self.source, self.teacher = (copy.deepcopy(self.network).requires_grad_(False) for _ in range(2))

    def chosen(self):
        return list(self.network.parameters())

    def step(self, images, generator):
        prepared = (images - self.mean) / self.std
        with torch.no_grad():
            sure = self.source(prepared).softmax(1).amax(1).mean()
            taught = self.views(images, generator) if sure < 1.0 else self.teacher(prepared)
        self.descend(-(taught.softmax(1) * self.network(prepared).log_softmax(1)).sum(1).mean())
        with torch.no_grad():
            triples = (self.teacher, self.network, self.source)
            for old, new, start in zip(*(module.parameters() for module in triples), strict=True):
                old.mul_(0.999).add_(new, alpha=0.001)
                chosen = torch.rand(new.shape, generator=generator) < 0.01
                new.copy_(torch.where(chosen, start, new))
        return taught

    def views(self, images, generator):
        draws = draw_jitter(VIEWS, tuple(images.shape[1:]), generator, Jitter())
        total = 0
        for k in range(VIEWS):
            view = augment(images, {name: tensor[k : k + 1] for name, tensor in draws.items()})
            total = total + self.teacher((view - self.mean) / self.std)
        return total / VIEWS

    def held(self):
        return [*super().held(), *self.source.parameters(), *self.teacher.parameters()]
