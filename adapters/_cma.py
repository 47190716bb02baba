# SPDX-License-Identifier: Apache-2.0
"""CMA-ES as pure functions of tensor state: propose candidates, and learn from how they did.

Source: Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772, with active covariance updates and the
constants of the package pycma.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tta_bench.optim import widest

State = dict[str, Tensor]
"""In float64: ``mean`` (N,), ``sigma``, ``C`` (N, N), ``root`` and ``inverse`` of C at its last decomposition, paths
``pc`` and ``ps`` (N,); and the counts ``told`` and ``decomposed``."""


@dataclass(frozen=True)
class Search:
    """The constants of a search in N dimensions with K candidates.

    Attributes:
        dim: N.
        size: K.
    """

    dim: int
    size: int

    @property
    def raw_weights(self) -> list[float]:
        """Weights by rank before they are scaled."""
        return [math.log((self.size + 1) / 2) - math.log(rank) for rank in range(1, self.size + 1)]

    @property
    def mueff(self) -> float:
        """Effective number of the better candidates."""
        return effective([w for w in self.raw_weights if w > 0])

    @property
    def cc(self) -> float:
        """Rate of the path of the covariance."""
        return (4 + self.mueff / self.dim) / (self.dim + 4 + 2 * self.mueff / self.dim)

    @property
    def cs(self) -> float:
        """Rate of the path of the step size."""
        return (self.mueff + 2) / (self.dim + self.mueff + 3)

    @property
    def c1(self) -> float:
        """Rate of the rank-one update."""
        return min(1.0, self.size / 6) * 2 / ((self.dim + 1.3) ** 2 + self.mueff)

    @property
    def cmu(self) -> float:
        """Rate of the update by all candidates."""
        gain = 0.25 + self.mueff - 2 + 1 / self.mueff
        return min(1 - self.c1, 2 * gain / ((self.dim + 2) ** 2 + self.mueff))

    @property
    def damping(self) -> float:
        """Damping of the step size."""
        return 1 + 2 * max(0.0, math.sqrt((self.mueff - 1) / (self.dim + 1)) - 1) + self.cs

    @property
    def expected_length(self) -> float:
        """Length of a standard normal vector, as pycma approximates it."""
        return math.sqrt(self.dim) * (1 - 1 / (4 * self.dim) + 1 / (26 * self.dim**2))

    def weights(self) -> list[float]:
        """Return the weights by rank of K + 1 candidates: better ones, which sum to 1, a zero, and worse ones."""
        better = [w for w in self.raw_weights if w > 0]
        worse = [w for w in self.raw_weights if w <= 0]
        total = -sum(worse)
        if total > 0:
            limits = (
                1 + self.c1 / self.cmu,
                (1 - self.c1 - self.cmu) / (self.cmu * self.dim),
                1 + 2 * effective(worse) / (self.mueff + 2),
            )
            worse = [w / total * min(limits) for w in worse]
        return [*(w / sum(better) for w in better), 0.0, *worse]


def effective(weights: list[float]) -> float:
    """Return the effective number of weighted items, ``(sum w)^2 / sum w^2``."""
    return sum(weights) ** 2 / sum(w * w for w in weights)


def start(search: Search, sigma: float, device: torch.device) -> State:
    """Return the state at the origin; the first covariance is near the identity with distinct eigenvalues."""
    variances = torch.exp(1e-4 * torch.arange(search.dim, dtype=widest(device), device=device) / search.dim)
    nothing = torch.zeros(search.dim, dtype=widest(device), device=device)
    count = torch.zeros((), dtype=torch.int64, device=device)
    return {
        "mean": nothing,
        "sigma": torch.full((), sigma, dtype=widest(device), device=device),
        "C": variances.diag(),
        "root": variances.sqrt().diag(),
        "inverse": variances.rsqrt().diag(),
        "pc": nothing.clone(),
        "ps": nothing.clone(),
        "told": count,
        "decomposed": count.clone(),
    }


def decomposed(search: Search, state: State) -> State:
    """Return the state with the roots of the current covariance, if the last ones are old enough to be replaced."""
    age = 1 / ((search.c1 + search.cmu) * search.dim * 10)
    if int(state["told"]) < int(state["decomposed"]) + age:
        return state
    values, vectors = torch.linalg.eigh((state["C"] + state["C"].T) / 2)
    deviations = values.clamp(min=torch.finfo(values.dtype).tiny).sqrt()
    return {
        **state,
        "root": vectors * deviations @ vectors.T,
        "inverse": vectors / deviations @ vectors.T,
        "decomposed": state["told"].clone(),
    }


def propose(state: State, z: Tensor) -> Tensor:
    """Return candidates (K, N) for standard normal numbers (K, N); the root is symmetric, so no sign is left open."""
    return state["mean"] + state["sigma"] * z.to(state["root"].dtype) @ state["root"]


def update(search: Search, state: State, candidates: Tensor, fitness: Tensor) -> State:
    """Return the state that has learnt from candidates.

    Args:
        search: The constants.
        state: As the first K candidates were proposed from it.
        candidates: (K + 1, N); the last one comes from elsewhere and is moved nearer if it is too far.
        fitness: (K + 1,), the lower the better.
    """
    mean, sigma, inverse = state["mean"], state["sigma"], state["inverse"]
    count = state["told"] + 1
    near = _near(search, candidates[-1] - mean, inverse, sigma)
    y = torch.cat([candidates[:-1] - mean, near[None]])[fitness.argsort(stable=True)] / sigma
    w = torch.tensor(search.weights(), dtype=y.dtype, device=y.device)
    step = w.clamp(min=0) @ y
    cs, cc, c1, cmu, mueff = search.cs, search.cc, search.c1, search.cmu, search.mueff
    ps = (1 - cs) * state["ps"] + math.sqrt(cs * (2 - cs) * mueff) * inverse @ step
    scale = 1 - (1 - cs) ** (2 * count.to(y.dtype))
    moves = (ps.square().sum() / scale / search.dim - 1 < 1 + 4 / (search.dim + 1)).to(y.dtype)
    pc = (1 - cc) * state["pc"] + moves * math.sqrt(cc * (2 - cc) * mueff) * step
    kept = 1 - c1 * (1 - (1 - moves) * cc * (2 - cc)) - cmu * w.sum()
    lengths = (y @ inverse).square().sum(-1)
    shares = torch.where(w >= 0, w, w * search.dim / (lengths.sqrt() + 1e-9).square())
    covariance = kept * state["C"] + c1 * torch.outer(pc, pc) + cmu * (y.T * shares) @ y
    change = cs / search.damping * (ps.norm() / search.expected_length - 1)
    return {
        **state, "mean": mean + sigma * step, "sigma": sigma * change.clamp(-1, 1).exp(), "C": covariance,
        "pc": pc, "ps": ps, "told": count,
    }  # fmt: skip


def _near(search: Search, away: Tensor, inverse: Tensor, sigma: Tensor) -> Tensor:
    """Return a distance (N,) from the mean that is no longer than proposals may be."""
    most = math.sqrt(search.dim) + 2 * search.dim / (search.dim + 2)
    length = (inverse @ away).norm() / sigma
    near: Tensor = away * (most / length.clamp(min=most))
    return near
