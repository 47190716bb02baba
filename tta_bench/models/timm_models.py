# SPDX-License-Identifier: Apache-2.0
"""Source models from timm, with the preprocessing that belongs to their weights."""

from __future__ import annotations

import math
from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from timm.models import get_pretrained_cfg, split_model_name_tag
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models.checkpoints import filled, read_weights
from tta_bench.models.classifier import bound, check_head, last_linear
from tta_bench.models.loading import ModelRequest, made_outputs
from tta_bench.models.source import SourceModel
from tta_bench.models.weights import filter_of, hub_file, misfit, seeded, unreachable

HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def load_timm(request: ModelRequest) -> SourceModel:
    """Load a timm classifier, e.g. timm/resnet50.a1_in1k, or timm/resnet50:FILE with weights of one's own.

    With a file the classifier has as many outputs as the file; without trained weights as many as there are classes,
    unless `class_indices` choose among the model's own.

    Raises:
        UnknownNameError: If timm has no such architecture or weights.
        IncompatibleError: If its outputs are not these classes or it does not end in a linear layer.
        BadInputError: If the weights cannot be fetched or do not fit.
    """
    name, _, file = request.rest.partition(":")
    facts = weights_facts(name)
    model, names = build(request, name, file, facts)
    check_linear(model, request.name)
    config = resolve_model_data_config(model)
    preprocess = preprocess_of(config, request.name)
    network = bound(model, request, names, () if names or file else label_wnids(model))
    check_head(network, preprocess.size, request.name)
    return SourceModel(
        network,
        name=request.name,
        kind="classifier",
        class_names=request.class_names,
        mean=config["mean"],
        std=config["std"],
        preprocess=preprocess,
        dtype=request.dtype,
        device=request.device,
        pretrained=request.pretrained,
    )


def weights_facts(name: str) -> Any:
    """Return timm's facts about the weights ``architecture.tag``, or about the default ones of an architecture.

    Raises:
        UnknownNameError: If timm does not know them.
    """
    architecture, _ = split_model_name_tag(name)
    if not timm.is_model(architecture):
        hint = "`timm.list_models()` has all names"
        raise UnknownNameError("timm architecture", architecture, timm.list_models(), hint)
    try:
        return get_pretrained_cfg(name)
    except RuntimeError as error:
        known = timm.list_pretrained(f"{architecture}.*")
        raise UnknownNameError("timm weights", name, known) from error


def label_wnids(model: nn.Module) -> tuple[str, ...]:
    """Return the WordNet ids of a published model's outputs, where timm knows its list of classes."""
    subset = infer_imagenet_subset(model)
    return tuple(ImageNetInfo(subset).label_names()) if subset else ()


def build(request: ModelRequest, name: str, file: str, facts: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the model with its weights, from a file, the hub, an address, or random, and names that a file holds.

    Raises:
        BadInputError: If the weights cannot be fetched or do not fit.
    """
    options: dict[str, Any] = {}
    if request.options.input_size:
        options["img_size"] = request.options.input_size
    if request.pretrained and file:
        model, read = filled(
            lambda outputs: create(request, name, outputs, options), file, request.name, made_outputs(request)
        )
        return model, read.class_names
    if not request.pretrained:
        return create(request, name, made_outputs(request), options), ()
    path = hub_weights(request.name, facts)
    options |= {"pretrained_cfg_overlay": overlay(path)} if path else _at_address(name, facts)
    try:
        model = create(request, name, None, options, pretrained=True)
    except OSError as error:
        raise unreachable(request.name, getattr(facts, "url", ""), error, "TORCH_HOME") from error
    except RuntimeError as error:
        raise misfit(request.name, "timm's repository", error) from error
    getattr(model, "pretrained_cfg", {}).pop("state_dict", None)  # timm keeps the tensors of the file there
    return model, ()


def create(
    request: ModelRequest, name: str, outputs: int | None, options: dict[str, Any], pretrained: bool = False
) -> nn.Module:
    """Return a model of timm with random weights from the request's seed, or its published ones.

    Args:
        request: Whose seed.
        name: In timm.
        outputs: How many; None: its own.
        options: Further ones of timm; ``img_size`` is left out where the architecture takes images of any size.
        pretrained: Whether timm loads weights.
    """
    count = {} if outputs is None else {"num_classes": outputs}
    try:
        with seeded(request.seed):
            model: nn.Module = timm.create_model(name, pretrained=pretrained, **options, **count)
            return model
    except TypeError as error:
        if "img_size" not in options or "img_size" not in str(error):
            raise
    return create(request, name, outputs, {k: v for k, v in options.items() if k != "img_size"}, pretrained)


def _at_address(name: str, facts: Any) -> dict[str, Any]:
    """Return no options for weights that timm fetches from an address itself.

    Raises:
        BadInputError: If there is no address either.
    """
    if not getattr(facts, "url", ""):
        known = ", ".join(timm.list_pretrained(f"{split_model_name_tag(name)[0]}*")[:8]) or "none"
        raise BadInputError(
            f"timm has no trained weights for {name!r}; similar models that have: {known}; choose one of them, "
            f"give a file as timm/{name}:FILE, or use pretrained=False for random weights",
            options=("pretrained",),
        )
    return {}


def hub_weights(name: str, facts: Any) -> str:
    """Return the local file of weights that timm keeps on the hub, fetched if need be; empty if it keeps none.

    timm would fetch them itself, but 1.0.9 cannot with huggingface_hub 2, and neither version uses what is
    cached without asking the network.
    """
    repository: str = getattr(facts, "hf_hub_id", None) or ""
    if not repository:
        return ""
    own: str | None = facts.hf_hub_filename
    if own is None:
        return hub_file(name, repository, HUB_FILES)
    safe = own.rpartition(".")[0] + ".safetensors"
    return hub_file(name, repository, (safe, own) if own.endswith((".bin", ".pth")) else (own,))


def overlay(path: str) -> dict[str, Any]:
    """Return the facts that make timm load a file; only foreign formats are left to timm's own reader."""
    if path.endswith((".npz", ".npy")):
        return {"file": path, "custom_load": True}
    return {"state_dict": read_weights(path)}


def check_linear(model: Any, name: str) -> None:
    """Check that what timm calls the classifier is the linear layer that features are read from.

    Raises:
        IncompatibleError: If there is no classifier, or several, or one that is not linear.
    """
    head = model.get_classifier()
    inside = list(head.modules()) if isinstance(head, nn.Module) else []
    if [module for module in inside if isinstance(module, nn.Linear)] != [last_linear(model)]:
        kind = (
            "no classifier" if isinstance(head, nn.Identity) else "a classifier that is not one linear layer"
        )
        raise IncompatibleError(
            f"{name!r} has {kind}, which features and prototypes are read from; choose weights that were trained "
            "for classification and an architecture that ends in a linear layer"
        )


def preprocess_of(config: dict[str, Any], name: str) -> Preprocess:
    """Return the resize and crop that timm's own evaluation transform would make of these facts.

    Raises:
        IncompatibleError: If images would be padded with a border, or kept in aspect for an oblong input.
    """
    height, width = config["input_size"][1:]
    tall, wide = (math.floor(side / config["crop_pct"]) for side in (height, width))
    resize: int | tuple[int, int] | None
    if config["crop_mode"] == "squash":
        resize = None if (tall, wide) == (height, width) else (tall, wide)
    elif config["crop_mode"] == "center" and tall == wide:
        resize = tall
    else:
        raise IncompatibleError(
            f"the crop of {name!r} must be 'center' with a square input, or 'squash', got "
            f"{config['crop_mode']!r} with {height}x{width}; choose another model"
        )
    return Preprocess((height, width), resize, filter_of(config["interpolation"]))
