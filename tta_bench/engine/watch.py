# SPDX-License-Identifier: Apache-2.0
"""Notice that foreign code wrote to the source model that all cells share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from tta_bench.errors import PluginError
from tta_bench.models.source import SourceModel


class Watch:
    """The tensors of a source model as they were loaded.

    Args:
        source: A source model that nothing has used yet.
    """

    def __init__(self, source: SourceModel) -> None:
        self._source, self._tensors = source, shared_tensors(source)
        self._versions = _versions(self._tensors)
        self._hashes = self._hashed(source.weights_sha256)

    def check(self, method: str) -> None:
        """Check the version counter of every tensor, which costs next to nothing.

        Raises:
            PluginError: If a tensor was written to since it was loaded.
        """
        for name, version in _versions(self._tensors).items():
            if version != self._versions[name]:
                raise _written(method, f"its tensor {name}")

    def check_bytes(self, method: str) -> None:
        """Check the tensors themselves, for writes that leave the counter alone, as those through ``.data`` do.

        Raises:
            PluginError: If a tensor differs from what was loaded.
        """
        self.check(method)
        if self._hashed(self._source.hash_weights()) != self._hashes:
            raise _written(method, "the hash of its weights")

    @property
    def sound(self) -> bool:
        """Return whether the source model is still what was loaded."""
        try:
            self.check_bytes("")
        except PluginError:
            return False
        return True

    def _hashed(self, weights: str) -> list[str]:
        others = [self._tensors[name] for name in sorted(self._tensors) if name.startswith("its ")]
        found = [weights, *(hashlib.sha256(_bytes(one)).hexdigest() for one in others)]
        reward = self._source.reward
        return found if reward is None else [*found, reward.hash_weights()]


def shared_tensors(source: SourceModel) -> dict[str, Tensor]:
    """Return every tensor of a source model by name, and those of its reward model."""
    found = {**source.params, **source.buffers}
    found |= {"its mean": source.mean, "its std": source.std, "its head": source.head_weight()}
    if source.text is not None:
        found |= {f"text.{name}": value for name, value in source.text.tensors().items()}
    if source.reward is not None:
        found |= {f"reward.{name}": value for name, value in shared_tensors(source.reward).items()}
    return found


def _versions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: one._version for name, one in tensors.items() if not one.is_inference()}


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _written(method: str, what: str) -> PluginError:
    return PluginError(
        f"{method} must leave the source model as it is, and {what} changed: it was written to in place; clone tensors "
        "before writing to them"
    )
