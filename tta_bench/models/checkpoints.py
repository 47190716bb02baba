# SPDX-License-Identifier: Apache-2.0
"""Files of weights: read without running their code, unwrapped, and fitted to a model name by name."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from tta_bench.errors import BadInputError
from tta_bench.models.weights import misfit

WRAPPERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema", "state_dict", "model_state_dict",
    "model_state", "model", "net", "network", "module", "weights", "params",
)  # fmt: skip
"""Keys under which training scripts keep the weights, the averaged ones first."""
SEGMENTS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts that wrappers insert anywhere into names; no layer has such a name itself."""
PREFIXES = ("module.", "model.")
"""Prefixes that wrappers put before all names."""
UNUSED = "num_batches_tracked"
"""A counter that old checkpoints do not have and that evaluation does not read."""
MALFORMED = (
    pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    ImportError, ArithmeticError, MemoryError, RecursionError, AssertionError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""Exceptions of torch and pickle on files that are damaged or are no checkpoints."""
SHOWN = 3
HEADER = 9


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or a PyTorch checkpoint by name, without running its code.

    Wrappers are taken off: the key that a training script keeps the weights under, and what compiling or
    distributing a model puts before the names.

    Raises:
        BadInputError: If the file is missing, empty, neither of both, or holds no weights.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadInputError(
            f"expected a file of weights, got {str(path)!r}, which does not exist; check the path"
        )
    with file.open("rb") as opened:
        head = opened.read(HEADER)
    if not head:
        raise BadInputError(f"expected a file of weights, got {file}, which is empty; fetch or save it again")
    safe = file.suffix == ".safetensors" or (len(head) == HEADER and head.endswith(b"{"))
    return _bare(unwrap(_read_safetensors(file) if safe else _read_pickle(file, head), file))


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, *MALFORMED) as error:
        raise BadInputError(
            f"expected a safetensors file, got {file}, which is broken: {_first_line(error)}; fetch it again"
        ) from error


def _read_pickle(file: Path, head: bytes) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's on unusual pickles, which are read or refused below
            return torch.load(file, map_location="cpu", weights_only=True)
    except MALFORMED as error:
        packed = head.startswith((b"PK", b"\x80"))
        why = _first_line(error) if packed else "it does not begin as one"
        raise BadInputError(
            f"expected a checkpoint of tensors alone, got {file}, which is not one ({why}); save the model's "
            "state_dict with torch.save or as safetensors"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def unwrap(content: object, file: Path) -> dict[str, Tensor]:
    """Return the tensors inside a checkpoint by name, wherever a training script keeps them.

    Raises:
        BadInputError: If there are none, or several sets of which none has a usual name.
    """
    found = _tensors(content)
    if found:
        return found
    inside = {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}
    sets = {key: value for key, value in inside.items() if _holds_tensors(value)}
    known = [key for key in WRAPPERS if key in sets]
    if known or len(sets) == 1:
        return unwrap(sets[known[0] if known else next(iter(sets))], file)
    if sets:
        raise BadInputError(
            f"expected one set of weights in {file}, got several ({', '.join(sorted(sets))}); save the "
            "state_dict of the model that is meant"
        )
    kind = (
        f"a mapping of {', '.join(sorted(inside)[:SHOWN]) or 'nothing'}" if inside else type(content).__name__
    )
    raise BadInputError(
        f"expected a mapping of names to tensors in {file}, got {kind}; save the model's state_dict"
    )


def _tensors(content: object) -> dict[str, Tensor]:
    """Return the tensors of a mapping of names to tensors, without the scalars that may stand beside them."""
    if not isinstance(content, Mapping) or any(
        key in content and _holds_tensors(content[key]) for key in WRAPPERS
    ):
        return {}
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    return {key: value for key, value in named.items() if isinstance(value, Tensor)}


def _holds_tensors(content: object) -> bool:
    """Return whether some mapping inside maps names to tensors; an optimiser's state, by numbers, does not."""
    if not isinstance(content, Mapping):
        return False
    return any(
        isinstance(key, str) and (isinstance(value, Tensor) or (key in WRAPPERS and _holds_tensors(value)))
        for key, value in content.items()
    )


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors without what wrappers add to names: segments anywhere, and ``module.`` before all of them."""
    bare = dict(tensors)
    for segment in SEGMENTS:
        bare = {name.replace(segment, ""): value for name, value in bare.items()}
    while bare and all(name.startswith("module.") for name in bare):
        bare = {name.removeprefix("module."): value for name, value in bare.items()}
    return bare


def fitted(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that a file holds for a model, without the prefix that they bear in the file.

    A model inside a larger one, as Lightning and averaged models save it, has its names behind a prefix of its own;
    what lies outside that prefix belongs to something else.

    Args:
        tensors: Of the file.
        own: Of the model.

    Raises:
        ValueError: If two prefixes would do.
    """
    matches = {prefix: sum(prefix + name in tensors for name in own) for prefix in _prefixes(tensors, own)}
    most = max(matches.values(), default=0)
    best = [prefix for prefix, count in matches.items() if count == most]
    if "" in best or not most:
        return dict(tensors)
    usual = [prefix for prefix in PREFIXES if prefix in best]
    if len(best) > 1 and not usual:
        raise ValueError(f"its names fit behind {' and '.join(sorted(best))}: save one of the two alone")
    prefix = usual[0] if usual else best[0]
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _prefixes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield no prefix, and every one behind which the file has a name that is specific to the model."""
    yield ""
    seen = {""}
    for name in sorted(own, key=len, reverse=True)[:SHOWN]:
        for key in tensors:
            prefix = key.removesuffix(name)
            if key != prefix and prefix.endswith(".") and prefix not in seen:
                seen.add(prefix)
                yield prefix


def differences(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return what keeps a file's tensors from being a model's, in words; empty where they are."""
    missing = [name for name in own if name not in tensors and not name.endswith(UNUSED)]
    unexpected = [name for name in tensors if name not in own]
    shapes = [
        f"{name} {tuple(tensors[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    told = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in told if names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def fill(model: nn.Module, path: str | Path, name: str) -> None:
    """Load a file of weights into a model; all names and shapes must agree.

    Args:
        model: That is filled in place.
        path: Of the file.
        name: The model's name on the command line, for the error.

    Raises:
        BadInputError: If the file cannot be read or does not fit: which names are missing, unexpected, or of another
            shape.
    """
    own = model.state_dict()
    try:
        tensors = fitted(read_weights(path), own)
    except ValueError as error:
        if isinstance(error, BadInputError):
            raise
        raise misfit(name, path, error) from error
    if told := differences(tensors, own):
        raise misfit(name, path, told)
    model.load_state_dict(tensors, strict=False)
