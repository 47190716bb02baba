# SPDX-License-Identifier: Apache-2.0
"""Shared by all loaders: seeded random weights, weight files from disk and the hub, clear errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch

from tta_bench.data.images.preprocess import Interpolation
from tta_bench.errors import BadInputError, IncompatibleError


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw the weights made inside from a seed; the global random state is the same afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, where weights are made
        yield


def unreachable(name: str, place: str, reason: object, setting: str = "HF_HOME") -> BadInputError:
    """Return the error for weights that could not be fetched.

    Args:
        name: The model's name on the command line.
        place: Repository or address that was tried.
        reason: What went wrong there.
        setting: Environment variable of the folder that may hold them already.
    """
    why = str(reason).strip().partition("\n")[0].rstrip(".")
    if isinstance(reason, Exception):
        why = f"{type(reason).__name__}: {why}"
    return BadInputError(
        f"the weights of {name!r} must come from {place}, which could not be fetched ({why}); connect once, or "
        f"set {setting} to a folder that has them, or use pretrained=False for random weights (for timing only)",
        options=("pretrained",),
    )


def hub_file(name: str, repository: str, files: Sequence[str]) -> str:
    """Return the local path of the first of some files that a Hugging Face repository has.

    What is cached is used without asking the network, so that a machine that connected once stays reproducible.

    Args:
        name: The model's name on the command line, for the error.
        repository: ``org/name`` or ``org/name@revision``.
        files: File names in order of preference.

    Raises:
        BadInputError: If none is cached and none can be fetched.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    place = f"https://huggingface.co/{repository}"
    identifier, _, revision = repository.partition("@")
    failure: Exception | None = None
    for cached_only in (True, False):
        for file in files:
            try:
                path: str = hf_hub_download(
                    identifier, file, revision=revision or None, local_files_only=cached_only
                )
                return path
            except (OSError, EntryNotFoundError, HFValidationError) as error:
                failure = error
                if not cached_only and isinstance(error, LocalEntryNotFoundError):
                    raise unreachable(name, place, error) from error
    raise unreachable(name, place, failure) from failure


def misfit(name: str, path: str | Path, reason: object) -> BadInputError:
    """Return the error for a file of weights that is for another model or another number of classes."""
    lines = [line.strip() for line in str(reason).splitlines() if line.strip()]
    return BadInputError(
        f"the weights in {path} do not fit the model {name!r} with these classes ({' '.join(lines[:2])[:300]}); "
        "name the architecture that the file was saved from, or the file that belongs to this one"
    )


def filter_of(interpolation: str) -> Interpolation:
    """Return an interpolation's name as one of those that we resize with.

    Raises:
        IncompatibleError: If it is none of them.
    """
    for known in get_args(Interpolation):
        if interpolation == known:
            chosen: Interpolation = known
            return chosen
    raise IncompatibleError(
        f"the model's interpolation must be one of {', '.join(get_args(Interpolation))}, got {interpolation!r}; "
        "choose another model"
    )
