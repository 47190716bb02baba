# SPDX-License-Identifier: Apache-2.0
"""A network of the running process as a source model."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from tta_bench.data.images.preprocess import Interpolation, Preprocess
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.models.classifier import bound, check_head
from tta_bench.models.loading import ModelRequest
from tta_bench.models.source import SourceModel
from tta_bench.spec import digest
from tta_bench.spec.code import code_hash

LIBRARIES = ("torch", "torchvision", "timm", "open_clip")
"""Code of these is told by their versions, which every manifest holds."""


@dataclass(frozen=True)
class OwnModel:
    """A classifier that was made in this process, and what it expects of an image; `tta_bench.model` makes it.

    Attributes:
        net: Maps normalised images (N, C, H, W) to logits; it ends in a linear layer.
        class_names: Names of its outputs in their order; empty: those of the dataset.
        mean: Per channel, subtracted from images in [0, 1].
        std: Per channel, by which they are divided then.
        preprocess: Resize and crop.
        name: In tables.
        content: Hash of weights, code and the facts above.
    """

    net: nn.Module = field(repr=False)
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    preprocess: Preprocess
    name: str
    content: str

    def bind(self, request: ModelRequest) -> SourceModel:
        """Return the source model for the classes of a dataset; the network itself is copied and stays as it is.

        Args:
            request: The classes, type and device.

        Raises:
            IncompatibleError: If its outputs are not these classes, or it does not end in a linear layer.
        """
        net = copy.deepcopy(self.net).cpu().float()
        if self.class_names and not request.class_folders and not request.options.class_map:
            net.label_outputs = list(range(len(self.class_names)))  # type: ignore[assignment]
            request = replace(request, class_indices=self._outputs(request.class_names))
        network = bound(net, request, self.class_names)
        check_head(network, self.preprocess.size, self.name)
        return SourceModel(
            network,
            name=self.name,
            kind="classifier",
            class_names=request.class_names,
            mean=self.mean,
            std=self.std,
            preprocess=self.preprocess,
            dtype=request.dtype,
            device=request.device,
        )

    def _outputs(self, class_names: Sequence[str]) -> tuple[int, ...] | None:
        """Return which outputs stand for the classes of a dataset by their names; None: all, in order."""
        if self.class_names == tuple(class_names):
            return None
        missing = [name for name in class_names if name not in self.class_names]
        if missing:
            raise IncompatibleError(
                f"model {self.name!r} has no class {missing[0]!r} of the dataset; its classes are "
                f"{', '.join(self.class_names[:10])}; give class_names in the order of its outputs"
            )
        return tuple(self.class_names.index(name) for name in class_names)


def own_model(
    net: nn.Module,
    class_names: Sequence[str] = (),
    *,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    size: int | tuple[int, int] = 224,
    resize: int | None = None,
    interpolation: Interpolation = "bilinear",
    name: str = "",
) -> OwnModel:
    """Return a network as a source model for `tta_bench.evaluate`.

    Args:
        net: Maps normalised images (N, 3, H, W) to logits; it ends in a linear layer.
        class_names: Names of its outputs in their order; by default those of the dataset.
        mean: Subtracted from images in [0, 1]: one number, or one for each channel.
        std: By which they are divided then.
        size: Height and width of its input, or one number for both, pixels.
        resize: Shorter side of the image before the centre crop; by default it is resized to `size` directly.
        interpolation: Filter of the resize.
        name: In tables; by default that of its class.

    Raises:
        BadInputError: If it is no network.
    """
    if not isinstance(net, nn.Module):
        raise BadInputError(f"a model must be a torch.nn.Module, got {type(net).__name__}")
    sides = (size, size) if isinstance(size, int) else (size[0], size[1])
    channels = [_per_channel(mean), _per_channel(std)]
    preprocess = Preprocess(sides, resize, interpolation)
    facts = [tuple(class_names), *channels, preprocess.describe(), *_code_of(net)]
    content = digest([facts, _weights(net)], 16)
    label = name or type(net).__name__.lower()
    return OwnModel(net, tuple(class_names), channels[0], channels[1], preprocess, label, content)


def _per_channel(value: Sequence[float] | float) -> tuple[float, ...]:
    return (float(value),) * 3 if isinstance(value, int | float) else tuple(map(float, value))


def _code_of(net: nn.Module) -> list[str]:
    """Return the structure of a network, and the code of those of its parts that belong to no library."""
    kinds = {type(part) for part in net.modules()}
    own = [kind for kind in kinds if kind.__module__.partition(".")[0] not in LIBRARIES]
    return [repr(net), *sorted(code_hash(kind) for kind in own)]


def _weights(net: nn.Module) -> str:
    sha = hashlib.sha256()
    for key, value in sorted({**dict(net.named_parameters()), **dict(net.named_buffers())}.items()):
        tensor = value.detach().cpu().contiguous()
        sha.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
