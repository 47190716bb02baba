# SPDX-License-Identifier: Apache-2.0
"""Named sets of prompt templates: their texts, where they come from, and their hash. No torch.

A cell has one set. The harness binds the source model to it, so that student, teacher and baseline are compared with
the same sentences: ``source.text.prototypes()`` are the class prototypes (K, D) of the cell's set, ``source.head`` the
scores under it, and ``source.text.logits(features, prototypes)`` those under other prototypes. A method never chooses
among sets itself; it declares the one of its publication in ``card.prompts`` or under the key ``"prompts"`` of a
preset, and ``--prompts`` replaces it. What a method encodes besides, it names in `Method.sentences`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tta_bench.errors import BadInputError, PluginError, UnknownNameError
from tta_bench.spec import digest

DATASET = "dataset"
"""Name that stands for the templates that a dataset declares."""
TYPED, BETWEEN = "typed", "|"
"""Name of templates that were given themselves, and what stands between them."""
HASH_LENGTH = 16
_CLIP = "CLIP, arXiv:2103.00020"
_COOP = "CoOp, arXiv:2109.01134"

PHOTO = ("a photo of a {}.",)
SEVEN = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
_QUALITIES = ("", "blurry ", "black and white ", "low contrast ", "high contrast ", "bad ", "good ")
_CIFAR = (
    *(f"a {quality}photo of a {{}}." for quality in _QUALITIES),
    "a photo of a small {}.",
    "a photo of a big {}.",
    *(f"a {quality}photo of the {{}}." for quality in _QUALITIES),
    "a photo of the small {}.",
    "a photo of the big {}.",
)
_TEXTURES = tuple(
    f"a photo of {article} {{}} {kind}."
    for article in ("a", "the")
    for kind in ("texture", "pattern", "thing", "object")
)
_CARS = (
    *(f"a photo of {article} {{}}." for article in ("a", "the", "my")),
    "i love my {}!",
    *(f"a photo of my {state} {{}}." for state in ("dirty", "clean", "new", "old")),
)
_ACTIONS = tuple(
    f"a {medium} of {article} person {verb}{{}}."
    for medium in ("photo", "video", "example", "demonstration")
    for article in ("a", "the")
    for verb in ("", "using ", "doing ", "during ", "performing ", "practicing ")
)


@dataclass(frozen=True)
class PromptSet:
    """Prompt templates with a name.

    Attributes:
        name: As ``--prompts`` takes it.
        templates: Templates with one ``{}`` each, where the class name goes.
        source: Where they were published.
    """

    name: str
    templates: tuple[str, ...]
    source: str = ""

    @property
    def hash(self) -> str:
        """Hash of the templates in their order; the name does not enter."""
        return digest(self.templates, HASH_LENGTH)


@lru_cache
def open_clip_lists() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ImageNet's class names and the 80 templates from open_clip, by running the one file that holds them.

    Raises:
        PluginError: If open_clip is not installed.
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise PluginError(
            "ImageNet's class names and prompt templates come from the package 'open_clip', which is not installed"
        )
    path = Path(next(iter(package.submodule_search_locations))) / "zero_shot_metadata.py"
    spec = importlib.util.spec_from_file_location("_tta_bench_open_clip_lists", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module.IMAGENET_CLASSNAMES), tuple(form("{}") for form in module.OPENAI_IMAGENET_TEMPLATES)


Templates = tuple[str, ...] | Callable[[], tuple[str, ...]]
_SETS: dict[str, tuple[Templates, str]] = {
    "single": (PHOTO, _CLIP),
    "seven": (SEVEN, f"{_CLIP}: those of the 80 that its authors selected on ImageNet"),
    "ensemble": (lambda: open_clip_lists()[1], f"{_CLIP}: the 80 for ImageNet"),
    "pets": (("a photo of a {}, a type of pet.",), _COOP),
    "flowers": (("a photo of a {}, a type of flower.",), _COOP),
    "food": (("a photo of {}, a type of food.",), _COOP),
    "aircraft": (("a photo of a {}, a type of aircraft.",), _COOP),
    "textures": (("{} texture.",), _COOP),
    "satellite": (("a centered satellite photo of {}.",), _COOP),
    "actions": (("a photo of a person doing {}.",), _COOP),
    "digits": (('a photo of the number: "{}".',), f"{_CLIP}: for MNIST"),
    "cifar-ensemble": (_CIFAR, _CLIP),
    "cars-ensemble": (_CARS, _CLIP),
    "scenes-ensemble": (tuple(f"a photo of {article} {{}}." for article in ("a", "the")), _CLIP),
    "aircraft-ensemble": (
        tuple(f"a photo of {article} {{}}, a type of aircraft." for article in ("a", "the")),
        _CLIP,
    ),
    "textures-ensemble": (_TEXTURES, _CLIP),
    "satellite-ensemble": (
        tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")),
        _CLIP,
    ),
    "actions-ensemble": (_ACTIONS, _CLIP),
}


def prompt_names() -> tuple[str, ...]:
    """Return the names of all sets."""
    return tuple(_SETS)


def named(name: str) -> PromptSet:
    """Return the set of a name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in _SETS:
        raise UnknownNameError("set of prompt templates", name, _SETS, "`tta-bench list prompts` shows all")
    templates, source = _SETS[name]
    return PromptSet(name, templates() if callable(templates) else templates, source)


def find_prompts(name: str, own: Mapping[str, Sequence[str]]) -> PromptSet:
    """Return the set that ``--prompts NAME|FILE`` means on one dataset.

    Args:
        name: A set of the dataset, else a named set, else templates joined by ``|``, else a text file with one
            template per line.
        own: Templates of the dataset by name, `DATASET` among them; they hide named sets.

    Raises:
        UnknownNameError: If it is none of these.
        BadInputError: If the file holds no templates.
    """
    if name in own:
        return PromptSet(name, tuple(own[name]))
    if name in _SETS:
        return named(name)
    if "{" in name:
        return PromptSet(
            TYPED, _checked([part.strip() for part in name.split(BETWEEN)], "prompts"), "the user's own"
        )
    path = Path(name)
    if path.is_file():
        return read_prompts(path)
    if path.suffix or "/" in name or "\\" in name:
        raise BadInputError(
            f"prompts expects a name or a text file, got {name!r}, which does not exist", options=("prompts",)
        )
    hint = "or give a template such as 'a photo of a {}.', or a text file of them; `tta-bench list prompts` shows all"
    raise UnknownNameError("set of prompt templates", name, {*own, *_SETS}, hint)


def read_prompts(path: Path) -> PromptSet:
    """Return the set that a UTF-8 text file holds: one template per line, empty lines left out.

    Raises:
        BadInputError: If it cannot be read, holds no template, or one without exactly one ``{}``.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(
            f"prompts expects a UTF-8 text file, but {path} cannot be read: {error}", options=("prompts",)
        ) from error
    templates = [line.strip() for line in lines if line.strip()]
    if not templates:
        raise BadInputError(f"{path} must hold one prompt template per line, e.g. {PHOTO[0]!r}, got none")
    return PromptSet(path.name, _checked(templates, str(path)), str(path))


def _checked(templates: Sequence[str], where: str) -> tuple[str, ...]:
    for template in templates:
        if not is_template(template):
            raise BadInputError(
                f"a template in {where} must have exactly one {{}} for the class name, got {template!r}"
            )
    return tuple(templates)


def is_template(text: str) -> bool:
    """Return whether a text has exactly one ``{}`` and no other brace."""
    return text.count("{}") == text.count("{") == text.count("}") == 1


def sentences(templates: Iterable[str], class_names: Iterable[str]) -> tuple[str, ...]:
    """Return what templates say of classes, template by template."""
    names = tuple(class_names)
    return tuple(template.format(name) for template in templates for name in names)


def sentences_hash(texts: Iterable[str]) -> str:
    """Return the hash of sentences in their order: the fact ``prompts`` of the protocol card."""
    return digest(list(texts), HASH_LENGTH)
