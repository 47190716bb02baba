# SPDX-License-Identifier: Apache-2.0
"""Files of weights: read without running their code, unwrapped, and fitted to a model name by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tta_bench.errors import BadInputError
from tta_bench.models.pickles import MALFORMED, first_line, read_pickle
from tta_bench.models.weights import misfit
from tta_bench.spec.class_files import named_outputs

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
SHOWN = 3
HEADER = 9
NAMES = ("class_names", "classes", "class_to_idx", "idx_to_class", "names", "id2label")
"""Keys under which training scripts keep the names of the outputs beside the weights."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights.

    Attributes:
        path: The file.
        tensors: By name, without what wrappers add.
        class_names: Of the model's outputs in their order, where the file tells them.
    """

    path: str
    tensors: Mapping[str, Tensor]
    class_names: tuple[str, ...] = ()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a file of weights; see `read_checkpoint`."""
    return dict(read_checkpoint(path).tensors)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Return what a safetensors file or a PyTorch checkpoint holds, without running its code.

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
    content = _read_safetensors(file) if safe else read_pickle(file, head)
    return Checkpoint(str(path), _bare(unwrap(content, file)), _names_in(content))


def _names_in(content: object) -> tuple[str, ...]:
    """Return the names of the outputs that a training script kept in a checkpoint, none if there are none."""
    if not isinstance(content, Mapping):
        return ()
    found = (named_outputs(content[key]) for key in NAMES if key in content)
    return next((names for names in found if names), ())


def _read_safetensors(file: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, *MALFORMED) as error:
        raise BadInputError(
            f"expected a safetensors file, got {file}, which is broken: {first_line(error)}; fetch it again"
        ) from error


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


def fill(model: nn.Module, checkpoint: Checkpoint | str | Path, name: str) -> None:
    """Load a file of weights into a model; all names and shapes must agree.

    Args:
        model: That is filled in place.
        checkpoint: The file, read or not yet.
        name: The model's name on the command line, for the error.

    Raises:
        BadInputError: If the file cannot be read or does not fit: which names are missing, unexpected, or of another
            shape.
    """
    read = checkpoint if isinstance(checkpoint, Checkpoint) else read_checkpoint(checkpoint)
    own = model.state_dict()
    tensors = _fitted(read, own, name)
    if told := differences(tensors, own):
        raise misfit(name, read.path, told)
    model.load_state_dict(tensors, strict=False)


def _fitted(read: Checkpoint, own: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    try:
        return fitted(read.tensors, own)
    except ValueError as error:
        raise misfit(name, read.path, error) from error


def filled(
    make: Callable[[int | None], nn.Module], path: str, name: str, outputs: int | None
) -> tuple[nn.Module, Checkpoint]:
    """Return a classifier with the weights of a file, and as many outputs as the file has.

    Args:
        make: Makes the model with so many outputs; None: its library's default.
        path: Of the file.
        name: The model's name on the command line, for the error.
        outputs: How many the user says that there are; None: as many as the file has.

    Raises:
        BadInputError: If the file cannot be read or does not fit.
    """
    read = read_checkpoint(path)
    model = make(outputs)
    own = model.state_dict()
    head = head_name(model)
    tensor = _fitted(read, own, name).get(head)
    if outputs is None and tensor is not None and len(tensor) != len(own[head]):
        model = make(len(tensor))
    fill(model, read, name)
    return model, read


def head_name(model: nn.Module) -> str:
    """Return the name of the weight of the last linear layer; empty without one."""
    found = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    return f"{found[-1]}.weight" if found else ""
