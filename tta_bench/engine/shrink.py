# SPDX-License-Identifier: Apache-2.0
"""Where the device runs out of memory: fewer episodes or views at once, and never a smaller batch."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor


def halved(size: int) -> int:
    """Return the next smaller size of what is taken at once; it must be above 1."""
    return (size + 1) // 2


def free_memory(device: torch.device) -> None:
    """Give back what the failed attempt holds, so that the next one does not fail on fragments."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class EncodedInParts:
    """Encode images and views, which do not depend on one another, in as many parts as memory makes it.

    Attributes:
        at_once: How many are encoded at once; None: all that come together.
        times: How often memory ran out.
    """

    def __init__(self) -> None:
        self.at_once: int | None = None
        self.times = 0

    def __call__(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Return the features (N, D) of images (N, C, H, W).

        Raises:
            torch.OutOfMemoryError: If one alone is too much.
        """
        found = self._tried(encode, images)
        while found is None:
            free_memory(images.device)
            found = self._tried(encode, images)
        return found

    def _tried(self, encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor | None:
        size = min(self.at_once or len(images), len(images))
        try:
            if size == len(images):
                return encode(images)
            return torch.cat([encode(part) for part in torch.split(images, size)])
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            self.at_once, self.times = halved(size), self.times + 1
            return None
