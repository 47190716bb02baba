# SPDX-License-Identifier: Apache-2.0
"""A CLIP model of golden weights: open_clip's own classes, with sizes read from the tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from open_clip.transform import PreprocessCfg
from torch import Tensor

from tta_bench.models.clip import clip_source
from tta_bench.models.loading import ModelRequest
from tta_bench.models.source import SourceModel

HEADS = 4
START, END = "<sot>", "<eot>"


def open_clip_source(
    weights: Mapping[str, Tensor],
    vocabulary: Mapping[str, int],
    names: Sequence[str],
    templates: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
) -> SourceModel:
    """Return the source model of weights in OpenAI's layout, in float64.

    Args:
        weights: By OpenAI's names.
        vocabulary: Token ids by word; full stops are words.
        names: The classes.
        templates: Prompt templates.
        mean: Per-channel mean of the normalisation.
        std: Per-channel deviation of the normalisation.
    """
    model = open_clip.CLIP(**_sizes(weights), quick_gelu=True).double()
    scale = weights["logit_scale"].reshape(())
    model.load_state_dict({**weights, "logit_scale": scale})
    context, side = model.context_length, model.visual.image_size[0]
    open_clip.model.set_model_preprocess_cfg(
        model, {**PreprocessCfg(size=side).__dict__, "mean": tuple(mean), "std": tuple(std)}
    )
    request = ModelRequest("tiny CLIP", "", tuple(names), templates=tuple(templates), dtype=torch.float64)
    return clip_source(request, model, lambda prompts: tokenize(prompts, vocabulary, context))


def tokenize(prompts: Sequence[str], vocabulary: Mapping[str, int], context: int) -> Tensor:
    """Return token ids (P, L): one for each word or full stop, between a start and an end token, padded with 0."""
    rows = []
    for prompt in prompts:
        words = prompt.replace(".", " .").split()
        ids = [vocabulary[word] for word in (START, *words, END)]
        rows.append(ids + [0] * (context - len(ids)))
    return torch.tensor(rows)


def _sizes(weights: Mapping[str, Tensor]) -> dict[str, object]:
    """Return the sizes of a model by the shapes of its tensors."""
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    grid = round((len(weights["visual.positional_embedding"]) - 1) ** 0.5)
    context, text_width = weights["positional_embedding"].shape
    blocks = [name.split(".") for name in weights if name.endswith("ln_1.weight")]
    depth = {part: sum(name[0] == part for name in blocks) for part in ("visual", "transformer")}
    vision = CLIPVisionCfg(
        layers=depth["visual"],
        width=width,
        head_width=width // HEADS,
        patch_size=patch,
        image_size=patch * grid,
    )
    text = CLIPTextCfg(
        context_length=context, vocab_size=len(weights["token_embedding.weight"]), width=text_width,
        heads=HEADS, layers=depth["transformer"],
    )  # fmt: skip
    return {"embed_dim": weights["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text}
