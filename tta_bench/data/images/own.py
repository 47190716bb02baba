# SPDX-License-Identifier: Apache-2.0
"""Images of the running process as a dataset: any iterable or map-style dataset of (image, label)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tta_bench.data.dataset import Dataset, OpenRequest
from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.spec import digest

EXPECTED = "(image, label) pairs, the image a PIL image, a tensor (3, H, W) or an array (H, W, 3)"


class OwnImages:
    """Images that a sequence of (image, label) gives; every image is read once to hash it.

    Args:
        data: Pairs by position.
        classes: How many classes there are.
    """

    origin = "the user's images"
    arrangement = "order of the data"

    def __init__(self, data: Sequence[Any], classes: int) -> None:
        self._data = data
        sha, labels = hashlib.sha256(), []
        for position in range(len(data)):
            image, label = self._pair(position)
            pixels = np.asarray(image)
            sha.update(f"{pixels.shape} {label}".encode() + pixels.tobytes())
            labels.append(label)
        self.ids: Sequence[str] = [f"{position:06d}" for position in range(len(data))]
        self.labels: np.ndarray = np.array(labels, dtype=np.int64)
        self.data_hash = sha.hexdigest()[:16]
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= classes))
        if len(wrong):
            raise BadInputError(
                f"labels must be 0 to {classes - 1} for {classes} class names, got {labels[wrong[0]]} at position "
                f"{wrong[0]}"
            )

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.ids)

    def load(self, positions: Sequence[int], preprocess: Preprocess) -> Tensor:
        """Return the model inputs (N, 3, H, W) uint8 of the images at these positions."""
        return torch.stack([preprocess(self._pair(position)[0]) for position in positions])

    def _pair(self, position: int) -> tuple[Image.Image, int]:
        pair = self._data[position]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise BadInputError(f"a dataset must give {EXPECTED}, got {type(pair).__name__} at {position}")
        return _as_image(pair[0], position), _as_label(pair[1], position)


def own_dataset(data: Iterable[Any], class_names: Sequence[str] = (), name: str = "") -> tuple[Dataset, str]:
    """Return a dataset of this process, and the hash of its images, labels and class names.

    Args:
        data: Pairs (image, label): a ``torch.utils.data.Dataset``, a list, or any iterable, which is read whole.
        class_names: In label order; by default the attribute ``classes`` of the data.
        name: In tables; by default that of its class.

    Raises:
        BadInputError: If it gives no such pairs, or the class names are not known.
    """
    names = tuple(class_names) or tuple(map(str, getattr(data, "classes", ())))
    if not names:
        raise BadInputError(
            f"the class names of {type(data).__name__} are not known; give them in label order as "
            "tta_bench.dataset(data, class_names=...)"
        )
    by_position = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    pairs: Any = data if by_position else list(data)
    images = OwnImages(pairs, len(names))
    kind = "images" if isinstance(data, list | tuple) or not by_position else type(data).__name__.lower()
    dataset = Dataset(
        name=name or kind,
        title=f"{len(images)} images of the running process",
        class_names=names,
        open=lambda request: _opened(images, request),
        licence="the user's own",
    )
    return dataset, digest([images.data_hash, names], 16)


def _opened(images: OwnImages, request: OpenRequest) -> OwnImages:
    """Return the images; a corruption was refused before, since the dataset declares none."""
    assert not request.shift.corruption
    return images


def _as_image(value: Any, position: int) -> Image.Image:
    """Return an RGB image of what a dataset gave."""
    if isinstance(value, Image.Image):
        return value.convert("RGB")
    pixels = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    if isinstance(pixels, np.ndarray) and pixels.ndim == 3:
        if isinstance(value, Tensor):
            pixels = pixels.transpose(1, 2, 0)
        if pixels.dtype.kind == "f":
            if pixels.min() < 0 or pixels.max() > 1:
                raise BadInputError(
                    f"float images must be in [0, 1], got {pixels.min():g} to {pixels.max():g} at position {position}; "
                    "leave the normalisation to the model (mean and std)"
                )
            pixels = (pixels * 255).round().astype(np.uint8)
        if pixels.dtype == np.uint8 and pixels.shape[2] in (1, 3):
            return Image.fromarray(np.ascontiguousarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2)))
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise BadInputError(f"a dataset must give {EXPECTED}, got {type(value).__name__}{shape} at {position}")


def _as_label(value: Any, position: int) -> int:
    number = value.item() if isinstance(value, Tensor | np.generic) else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise BadInputError(f"labels must be whole numbers, got {value!r} at position {position}")
    return number
