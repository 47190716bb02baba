# SPDX-License-Identifier: Apache-2.0
"""Multi-modal prompts as MaPLe learns them: read from a file, and taken to both towers of a model."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.method import SourceModel
from tta_bench.optim import Tensors

STATISTICS = ("source_means", "source_vars")
DEEP, DEEP_MAPS = "compound_prompts_text", "compound_prompt_projections"


def check_given(path: str) -> None:
    """Refuse a run without a file of prompts.

    Raises:
        BadInputError: With what it must hold.
    """
    if not path:
        raise BadInputError(
            "PromptAlign needs prompts that were trained with the source model and the statistics of its tokens; give "
            "a safetensors file by the setting weights=FILE, with ctx, proj.weight, proj.bias, source_means and "
            "source_vars"
        )
    if not Path(path).expanduser().is_file():
        raise BadInputError(f"expected a safetensors file of prompts, got {path!r}, which is no file")


def read_prompts(path: str, source: SourceModel) -> tuple[Tensors, Tensors]:
    """Return the prompts and the source statistics of a file, in the model's type and on its device.

    Raises:
        BadInputError: If no file is given, it cannot be read, or a tensor of it is missing.
    """
    check_given(path)
    try:
        tensors = load_file(Path(path).expanduser())
    except (OSError, SafetensorError) as error:
        raise BadInputError(f"expected a safetensors file of prompts, got {path!r}: {error}") from error
    deep = [name for name in tensors if name.startswith(DEEP)]
    maps = [f"{DEEP_MAPS}.{name.rpartition('.')[2]}.{part}" for name in deep for part in ("weight", "bias")]
    names = ("ctx", "proj.weight", "proj.bias", *deep, *maps)
    for name in (*names, *STATISTICS):
        if name not in tensors:
            raise BadInputError(
                f"the prompts in {path!r} do not have the tensor {name!r}; give a complete file"
            )
    ours = {name: value.to(source.device, source.dtype) for name, value in tensors.items()}
    return {name: ours[name] for name in names}, {name: ours[name] for name in STATISTICS}


def check_fit(params: Tensors, statistics: Tensors, source: SourceModel, path: str) -> None:
    """Refuse prompts of other widths than those of the model's towers.

    Raises:
        IncompatibleError: With both widths.
    """
    parts, text = source.transformer, source.text
    if parts is None or text is None:
        raise IncompatibleError(
            f"PromptAlign needs a CLIP-like model whose image tower is a vision transformer with a class token, which "
            f"{source.name!r} is not; choose e.g. open_clip/ViT-B-16:TAG"
        )
    expected = (text.context().ctx.shape[-1], parts.width, parts.width)
    got = (params["ctx"].shape[-1], params["proj.weight"].shape[0], statistics["source_means"].shape[-1])
    if got != expected:
        raise IncompatibleError(
            f"prompts for {source.name!r} must have widths {expected} (text, image, source statistics), got {got} in "
            f"{path!r}; give those that were trained with this model"
        )


def text_prompts(params: Tensors) -> list[Tensor]:
    """Return the text prompts (n, W) of the blocks after the first."""
    return [params[f"{DEEP}.{index}"] for index in range(_depth(params))]


def image_prompts(params: Tensors) -> list[Tensor]:
    """Return the image prompts (n, D') of the first blocks: linear maps of the text prompts."""
    maps = [f"{DEEP_MAPS}.{index}" for index in range(_depth(params))]
    first = F.linear(params["ctx"], params["proj.weight"], params["proj.bias"])
    rest = [
        F.linear(rows, params[f"{name}.weight"], params[f"{name}.bias"])
        for rows, name in zip(text_prompts(params), maps, strict=True)
    ]
    return [first, *rest]


def reordered(tokens: Tensor, count: int) -> Tensor:
    """Return tokens (..., L, D') with the prompts, which follow the class token, at the end as in the statistics."""
    return torch.cat([tokens[..., :1, :], tokens[..., 1 + count :, :], tokens[..., 1 : 1 + count, :]], -2)


def _depth(params: Tensors) -> int:
    return sum(name.startswith(f"{DEEP}.") for name in params)
