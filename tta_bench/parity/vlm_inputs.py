# SPDX-License-Identifier: Apache-2.0
"""Inputs of the golden vectors of family ``vlm``: recorded features, and a tiny CLIP model with its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError
from tta_bench.method import Inputs
from tta_bench.models.source import SourceModel
from tta_bench.models.text import TextSide
from tta_bench.parity.folder import below, entry, read_arrays, read_texts
from tta_bench.parity.models import Prototypes, Recorded
from tta_bench.parity.tiny_clip import open_clip_source

FAMILY = "vlm"
TEMPLATES = "template {number}: {{}}"
"""Names of the templates whose text features are recorded; the class name alone stands for template 0."""


class Recordings(nn.Module):
    """A text tower that gives recorded features (P, D) by their position."""

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)

    def encode_text(self, ids: Tensor) -> Tensor:
        """Return the features (P, D) of positions (P,)."""
        return self.rows[ids]


def recorded_text(
    by_prompt: Mapping[str, Tensor], names: Sequence[str], templates: Sequence[str], scale: Tensor
) -> TextSide:
    """Return the text side of recorded features (D,) by prompt."""
    positions = {prompt: index for index, prompt in enumerate(by_prompt)}

    def tokenize(prompts: list[str]) -> Tensor:
        missing = [prompt for prompt in prompts if prompt not in positions]
        if missing:
            raise BadInputError(f"there is no recorded text feature of {missing[0]!r}")
        return torch.tensor([positions[prompt] for prompt in prompts])

    return TextSide(Recordings(torch.stack([*by_prompt.values()])), tokenize, names, templates, scale=scale)


@dataclass(frozen=True)
class Features:
    """Recorded features in float64, in the order of the stream.

    Attributes:
        views: (N, V, D), view 0 being the image itself.
        text: (K, D) of the default prompts.
        raw: (T, K, D) of T templates, not normalised.
        scale: 0-d factor of the cosines.
    """

    views: Tensor
    text: Tensor
    raw: Tensor
    scale: Tensor

    @classmethod
    def read(cls, folder: Path) -> Features:
        """Read ``features.npz``."""
        arrays = read_arrays(input_file(folder, "features.npz"))
        views, text, raw, scale = (
            entry(arrays, name, "features.npz").double()
            for name in ("views", "text", "text_templates_raw", "logit_scale")
        )
        return cls(views, text, raw, scale.reshape(()))

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt templates of the text side that stand for `raw`."""
        return tuple(TEMPLATES.format(number=number) for number in range(len(self.raw)))

    @cached_property
    def source(self) -> SourceModel:
        """A source model without an encoder, whose text side has `text` and `raw`."""
        return self.source_of(self.text)

    def source_of(self, text: Tensor) -> SourceModel:
        """Return a source model with other text features (K, D) for the default prompts."""
        names = tuple(f"class {index}" for index in range(len(text)))
        rows = dict(zip(names, text, strict=True))
        if text.shape == self.text.shape:
            for template, features in zip(self.templates, self.raw, strict=True):
                rows.update({template.format(name): row for name, row in zip(names, features, strict=True)})
        return SourceModel(
            Prototypes(text, self.scale), name="recorded features", kind="clip", class_names=names,
            mean=(0.0,) * 3, std=(1.0,) * 3, preprocess=Preprocess((1, 1)), dtype=text.dtype,
            text=recorded_text(rows, names, ("{}",), self.scale),
        )  # fmt: skip

    def stream(self, size: int = 1, views: Tensor | None = None) -> Iterator[Inputs]:
        """Yield the steps of a stream in batches of a size, with all views; ``views`` (N, V, D) instead of our own."""
        for batch in torch.split(self.views if views is None else views, size):
            yield Inputs(images=None, features=batch[:, 0], view_features=batch)


@dataclass(frozen=True)
class Clip:
    """A tiny CLIP model in float64 with images and their views.

    Attributes:
        arrays: The numeric arrays of ``tiny_clip.npz``.
        names: The class names.
        templates: The prompt templates of WATT.
        vocabulary: Token ids by word.
    """

    arrays: Mapping[str, Tensor]
    names: tuple[str, ...]
    templates: tuple[str, ...]
    vocabulary: Mapping[str, int]

    @classmethod
    def read(cls, folder: Path) -> Clip:
        """Read ``tiny_clip.npz``."""
        path = input_file(folder, "tiny_clip.npz")
        pairs = (line.partition("=") for line in read_texts(path, "token_table"))
        vocabulary = {word: int(number) for number, _, word in pairs}
        names, templates = (tuple(read_texts(path, name)) for name in ("class_names", "templates"))
        return cls(read_arrays(path), names, templates, vocabulary)

    @cached_property
    def views(self) -> Tensor:
        """Views (N, V, C, H, W) of the images in [0, 1], view 0 being the image itself."""
        return _pixels(self.arrays, "views_u8")

    @cached_property
    def batch(self) -> Tensor:
        """The images (B, C, H, W) in [0, 1] of the batch methods."""
        return _pixels(self.arrays, "batch_u8")

    @cached_property
    def source(self) -> SourceModel:
        """The source model with the prompt ``a photo of a {}.``."""
        return self.source_with("a photo of a {}.")

    def source_with(self, *templates: str) -> SourceModel:
        """Return the source model with other prompt templates."""
        mean, std = (entry(self.arrays, name, "tiny_clip.npz") for name in ("pixel_mean", "pixel_std"))
        return open_clip_source(
            below(self.arrays, "w/"), self.vocabulary, self.names, templates, mean.tolist(), std.tolist()
        )

    @cached_property
    def reward(self) -> SourceModel:
        """The reward model of RLCF: features of the views by the images that they were recorded for."""
        features, text = (
            entry(self.arrays, f"teacher_{part}_features", "tiny_clip.npz") for part in ("view", "text")
        )
        scale = torch.tensor(100.0, dtype=torch.float64)
        rows = {f"a photo of a {name}.": row for name, row in zip(self.names, text, strict=True)}
        return SourceModel(
            Recorded(self.views.flatten(0, 1), features.flatten(0, 1), text, scale), name="recorded teacher",
            kind="clip", class_names=self.names, mean=(0.0,) * 3, std=(1.0,) * 3, dtype=text.dtype,
            preprocess=Preprocess((self.views.shape[-2], self.views.shape[-1])),
            text=recorded_text(rows, self.names, ("a photo of a {}.",), scale),
        )  # fmt: skip

    def episodes(self, *, passes: int = 1, source: SourceModel | None = None) -> Iterator[Inputs]:
        """Yield one image after the other with its views and the features of both, several times over."""
        source = source or self.source
        with torch.no_grad():
            features = torch.unflatten(source.encode(self.views.flatten(0, 1)), 0, self.views.shape[:2])
        for _ in range(passes):
            for views, found in zip(torch.split(self.views, 1), torch.split(features, 1), strict=True):
                yield Inputs(images=views[:, 0], views=views, features=found[:, 0], view_features=found)

    def batches(self, size: int, views: int, batches: int) -> list[Tensor]:
        """Return batches (B, C, H, W) of the batch images and the first views of each image, as the README says."""
        images = torch.cat([self.batch, self.views[:, :views].flatten(0, 1)])
        return list(torch.split(images, size)[:batches])


def input_file(folder: Path, name: str) -> Path:
    """Return a file of inputs: that of the folder, or of the sibling folder named like the family."""
    own, shared = folder / name, folder.parent / FAMILY / name
    return shared if shared.is_file() and not own.is_file() else own


def _pixels(arrays: Mapping[str, Tensor], name: str) -> Tensor:
    """Return recorded bytes as numbers in [0, 1]."""
    found: Tensor = entry(arrays, name, "tiny_clip.npz")
    return found.double() / 255
