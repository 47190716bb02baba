# SPDX-License-Identifier: Apache-2.0
"""CLIP-like source models from open_clip: its own configurations, and repositories on the hub."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
from safetensors import SafetensorError

from tta_bench.data.layouts.base import read_text
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.models.checkpoints import fill
from tta_bench.models.clip import clip_source
from tta_bench.models.loading import ModelRequest, is_file
from tta_bench.models.source import SourceModel
from tta_bench.models.weights import hub_file, misfit, seeded, unreachable

HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")
QUICK = "-quickgelu"


def load_open_clip(request: ModelRequest) -> SourceModel:
    """Load an open_clip model, e.g. open_clip/ViT-B-16-quickgelu:openai, or open_clip/ViT-B-16:FILE.

    Raises:
        UnknownNameError: If open_clip has no such configuration or weights.
        BadInputError: If weights and configuration do not belong together, or cannot be fetched.
    """
    architecture, _, tag = request.rest.partition(":")
    architecture = architecture.replace("/", "-")  # old names have a slash: ViT-B/16
    if architecture not in open_clip.list_models():
        hint = "weights follow a colon, as in open_clip/ViT-B-16-quickgelu:openai"
        raise UnknownNameError("open_clip model", architecture, open_clip.list_models(), hint)
    path, facts = None, {}
    if tag:
        facts = tag_facts(architecture, tag)
    if request.pretrained:
        path = weights_path(request.name, architecture, tag, facts)
    return _load(request, architecture, path, facts)


def load_hub(request: ModelRequest) -> SourceModel:
    """Load an open_clip model from a repository on the Hugging Face hub, e.g. hf-hub:org/repo.

    Raises:
        BadInputError: If the repository cannot be fetched or holds no open_clip model.
    """
    config = hub_file(request.name, request.rest, ("open_clip_config.json",))
    try:
        facts = json.loads(read_text(Path(config)))
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadInputError(
            f"{config} must be a JSON file, but {error}; fetch the repository again"
        ) from error
    if not isinstance(facts, dict) or not isinstance(facts.get("model_cfg"), dict):
        raise BadInputError(
            f"expected an open_clip_config.json with 'model_cfg' in {request.rest!r}, got {config}"
        )
    path = hub_file(request.name, request.rest, HUB_FILES) if request.pretrained else None
    architecture = _register(request.name, facts["model_cfg"])
    return _load(request, architecture, path, facts.get("preprocess_cfg", {}))


def tag_facts(architecture: str, tag: str) -> dict[str, Any]:
    """Return open_clip's facts about the weights of a tag; none for a file.

    Raises:
        UnknownNameError: If the configuration has no such weights.
        BadInputError: If the weights were trained with QuickGELU and the configuration has another activation.
    """
    if not open_clip.is_pretrained_cfg(architecture, tag):
        if Path(tag).expanduser().is_file():
            return {}
        if is_file(tag):
            raise BadInputError(
                f"expected a file of weights, got {tag!r}, which does not exist; check the path"
            )
        known = open_clip.list_pretrained_tags_by_model(architecture)
        raise UnknownNameError(
            f"weights of open_clip/{architecture}", tag, known, "a file of weights will do too"
        )
    facts: dict[str, Any] = open_clip.get_pretrained_cfg(architecture, tag)
    quick = bool(open_clip.get_model_config(architecture).get("quick_gelu", False))
    if facts.get("quick_gelu", False) and not quick:
        fitting = f"{architecture}{QUICK}"
        right = (
            f"use 'open_clip/{fitting}:{tag}'" if fitting in open_clip.list_models() else "choose another tag"
        )
        raise BadInputError(
            f"the weights {tag!r} were trained with QuickGELU, got the configuration {architecture!r}, which has "
            f"another activation and would silently lose accuracy; {right}"
        )
    return facts


def weights_path(name: str, architecture: str, tag: str, facts: dict[str, Any]) -> str:
    """Return the local file of a tag's weights, fetched if need be.

    Raises:
        BadInputError: If no tag was given, or the weights cannot be fetched.
    """
    if not tag:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise BadInputError(
            f"expected weights after a colon, as in 'open_clip/{architecture}:TAG', got {name!r}; known: {known}; "
            "or use pretrained=False for random weights",
            options=("pretrained",),
        )
    if not facts:
        return str(Path(tag).expanduser())
    if facts.get("hf_hub"):
        repository, _, file = facts["hf_hub"].rpartition("/")
        safe = file.rpartition(".")[0] + ".safetensors"
        return hub_file(name, repository, (safe, file) if file else HUB_FILES)
    try:
        path: str = open_clip.download_pretrained_from_url(facts["url"])
        return path
    except (OSError, RuntimeError) as error:  # the latter: a checksum that does not agree
        raise unreachable(name, facts["url"], error, "HOME") from error


def _load(request: ModelRequest, architecture: str, path: str | None, facts: dict[str, Any]) -> SourceModel:
    """Return the source model of a registered configuration with weights from a file, or random ones."""
    _check_transformers(request.name, architecture)
    preprocess = {key: facts[key] for key in PREPROCESS_KEYS if facts.get(key) is not None}
    own = path is not None and _is_own(request)
    try:
        with seeded(request.seed):
            model = open_clip.create_model(
                architecture,
                pretrained=None if own else path,
                force_preprocess_cfg=preprocess,
                force_image_size=request.options.input_size or None,
                pretrained_hf=False,
            )
        if own:
            fill(model, str(path), request.name)
        tokenizer = open_clip.get_tokenizer(architecture)
    except (UnpicklingError, EOFError, SafetensorError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadInputError(
            f"expected weights of {request.name!r} as tensors alone, got {path}, which cannot be read ({reason}); "
            "fetch the file again"
        ) from error
    except OSError as error:
        raise unreachable(request.name, "the repository of its text model", error) from error
    except ImportError as error:
        raise BadInputError(
            f"the text side of {request.name!r} needs a package that is not installed ({error}); install it with pip"
        ) from error
    except RuntimeError as error:
        if path is None:
            raise
        raise misfit(request.name, path, error) from error
    return clip_source(request, model, tokenizer)


def _is_own(request: ModelRequest) -> bool:
    """Return whether a request names a file of weights of the user's own, saved by PyTorch or as safetensors."""
    architecture, _, tag = request.rest.partition(":")
    if request.name.startswith("hf-hub:") or tag.endswith((".npz", ".npy")):
        return False
    return bool(tag) and not open_clip.is_pretrained_cfg(architecture.replace("/", "-"), tag)


def _check_transformers(name: str, architecture: str) -> None:
    """Check that transformers is there, where the text tower or the tokenizer is one of its own."""
    text = open_clip.get_model_config(architecture)["text_cfg"]
    foreign = "hf_model_name" in text or "hf_tokenizer_name" in text or "siglip" in architecture.lower()
    if foreign and find_spec("transformers") is None:
        raise BadInputError(
            f"the text side of {name!r} needs the package transformers, which is not installed; "
            "run `pip install transformers sentencepiece`"
        )


def _register(name: str, config: dict[str, Any]) -> str:
    """Make open_clip know a configuration from the hub under a name of its own, and return that name."""
    known_as = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    if known_as not in open_clip.list_models():
        with TemporaryDirectory() as folder:
            file = Path(folder) / f"{known_as}.json"
            file.write_text(json.dumps(config), encoding="utf-8")
            open_clip.add_model_config(file)
    return known_as
