# SPDX-License-Identifier: Apache-2.0
"""Known warnings of libraries, and what a user can do about them, in our words."""

from __future__ import annotations

import re

KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"QuickGELU mismatch",
        "these weights were trained with QuickGELU and the model has another activation, so its accuracy is too low; "
        "take the model whose name ends in -quickgelu",
    ),
    (
        r"driver on your system is too old|CUDA initialization:",
        "there is a CUDA device that torch cannot use; update its driver, or install a torch built for an older CUDA",
    ),
    (
        r"DataLoader will create \d+ worker processes",
        "more processes decode images than there are processors, which is slower; ask for fewer workers",
    ),
    (
        r"not currently supported on the MPS backend and will fall back to run on the CPU",
        "an operation does not run on mps and is computed on the CPU, which the times include; compare them with "
        "device cpu",
    ),
    (
        r"DecompressionBomb|exceeds limit of \d+ pixels",
        "an image has more pixels than photographs do; check where the data come from, and scale it down",
    ),
    (
        r"unauthenticated requests to the HF Hub",
        "models are fetched from the hub without an account, which it slows down; set HF_TOKEN",
    ),
)
"""The text of a warning, as a regular expression, and the sentence in its place."""

IDLE = (r"torch\.jit\.\w+` is deprecated", r"torch\.jit\.\w+` is not supported")
"""Warnings of libraries about their own future, which change no number and which no user can do anything about."""


def is_idle(text: str) -> bool:
    """Return whether a warning is for the authors of a library alone."""
    return any(re.search(pattern, text) for pattern in IDLE)


def in_our_words(text: str) -> str | None:
    """Return what a user can do about a warning, None where it is not known or nothing can be done."""
    return next((sentence for pattern, sentence in KNOWN if re.search(pattern, text)), None)
