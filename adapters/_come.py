# SPDX-License-Identifier: Apache-2.0
"""Shared by the registered combinations of COME with a host: the citation, and the learning rates of its code."""

from __future__ import annotations

from typing import Any

COME: dict[str, Any] = {
    "paper": "arXiv:2410.10894",
    "title": "COME: Test-time adaption by Conservatively Minimizing Entropy",
    "authors": "Zhang, Qingyang and Bian, Yatao and Kong, Xinke and Zhao, Peilin and Zhang, Changqing",
    "venue": "International Conference on Learning Representations",
    "year": 2025,
    "reference_licence": "none stated",
}
PRESETS: dict[str, dict[str, Any]] = {
    "imagenet-c": {"optimizer": "sgd", "lr": 2.5e-4, "momentum": 0.9},
    "imagenet-c-vit": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
}
