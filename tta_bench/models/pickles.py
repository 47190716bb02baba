# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that PyTorch pickled: tensors and what training scripts keep beside them, and no code of anybody's."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tta_bench.errors import BadInputError

MALFORMED = (
    pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    ImportError, ArithmeticError, MemoryError, RecursionError, AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions of torch and pickle on files that are damaged or are no checkpoints."""


def harmless() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the types that training scripts keep beside weights, and that do nothing when they are read.

    They are options as argparse leaves them, paths, numpy's numbers and arrays, and Python's own containers.
    """
    array = np.zeros(1)
    rebuild: Any = array.__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    numbers = [type(np.dtype(kind)) for kind in (bool, "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8")]
    paths = [pathlib.PurePosixPath, pathlib.PosixPath, pathlib.PureWindowsPath, pathlib.WindowsPath]
    kinds = [argparse.Namespace, collections.defaultdict, np.ndarray, np.dtype, list, dict, set, tuple]
    return [rebuild, scalar, *numbers, *paths, *kinds]


def read_pickle(file: Path, head: bytes) -> object:
    """Return what a PyTorch checkpoint holds.

    Args:
        file: The checkpoint.
        head: Its first bytes.

    Raises:
        BadInputError: If it is none, or holds more than tensors and what is harmless beside them.
    """
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(harmless()):
            warnings.simplefilter("ignore")  # torch's on unusual pickles, which are read or refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except MALFORMED as error:
        packed = head.startswith((b"PK", b"\x80"))
        why = _reason(error) if packed else "it does not begin as one"
        raise BadInputError(
            f"expected a checkpoint of tensors alone, got {file}, which is not one ({why}); save the model's "
            "state_dict with torch.save or as safetensors"
        ) from error


def _reason(error: BaseException) -> str:
    """Return why a pickle was not read, without what torch advises: to trust it."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if found is None:
        return first_line(error)
    name = found[1].removesuffix(".")
    return f"it holds an object of {name}, which would run code when it is read"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
