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

ANSWER_SECONDS = 10.0
NETWORK = ("httpx", "httpx2", "httpcore", "requests", "urllib3", "huggingface_hub")
"""Libraries whose errors mean that the hub cannot be reached."""


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
        if not cached_only and (trouble := hub_trouble()) is not None:
            raise unreachable(name, place, trouble) from trouble
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


def hub_trouble() -> Exception | None:
    """Return what keeps this machine from the hub, None if it answers; asked once, since the library asks for long."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return ConnectionError("HF_HUB_OFFLINE is set")
    try:
        get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS)
    except Exception as error:
        # whatever the library of its session raises, which differs between its versions
        if type(error).__module__.partition(".")[0] not in NETWORK and not isinstance(error, OSError):
            raise
        return error
    return None


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
