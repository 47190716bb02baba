# SPDX-License-Identifier: Apache-2.0
"""Source models from RobustBench's zoo, an optional extra whose import needs a workaround."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.errors import BadInputError, IncompatibleError, UnknownNameError
from tta_bench.models.classifier import bound, check_head, outputs_of
from tta_bench.models.loading import ModelRequest
from tta_bench.models.pickles import MALFORMED
from tta_bench.models.source import SourceModel
from tta_bench.models.timm_models import preprocess_of
from tta_bench.models.weights import seeded, unreachable

OUTPUTS = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
PREPROCESSINGS = {
    "Res256Crop224": Preprocess((224, 224), 256),
    "BicubicRes256Crop224": Preprocess((224, 224), 256, "bicubic"),
    "Res224": Preprocess((224, 224)),
    "Crop288": Preprocess((288, 288), 0),
}
OVERRIDDEN = "as RobustBench's zoo declares it; its own evaluation takes timm's"
"""Of models that RobustBench's evaluation prepares images for in another way than its zoo declares."""
PREFERRED_THREAT = "corruptions"
INSTALL = "pip install 'tta-bench[robustbench]'"


def load_robustbench(request: ModelRequest) -> SourceModel:
    """Load a RobustBench model, e.g. robustbench/Standard or robustbench/cifar10/corruptions/Standard.

    Raises:
        UnknownNameError: If the zoo has no such model.
        IncompatibleError: If its outputs are not these classes or are not one linear layer's, or the zoo prepares
            its images in a way that is not known.
        BadInputError: If the extra is missing, or the weights cannot be fetched.
    """
    zoo = import_zoo(request.name)
    dataset, threat, name = resolve(catalogue(zoo), request)
    entry = catalogue(zoo)[dataset, threat, name]
    mean, std, model = unwrap(_build(zoo, request, dataset, threat, name))
    preprocess = declared_preprocess(entry.get("preprocessing"), dataset, model, request.name)
    if dataset == "imagenet" and entry.get("preprocessing") and timm_name(dataset, threat, name):
        preprocess = replace(preprocess, note=OVERRIDDEN)
    network = bound(model, request)
    check_head(network, preprocess.size, request.name)
    return SourceModel(
        network,
        name=request.name,
        kind="classifier",
        class_names=request.class_names,
        mean=mean,
        std=std,
        preprocess=preprocess,
        dtype=request.dtype,
        device=request.device,
        pretrained=request.pretrained,
    )


def import_zoo(name: str) -> ModuleType:
    """Import RobustBench although two of its imports no longer exist under the names that it uses.

    Raises:
        BadInputError: If the extra is not installed.
    """
    if find_spec("robustbench") is None:
        raise BadInputError(f"{name!r} needs RobustBench, which is not installed; run `{INSTALL}`")
    if find_spec("autoattack") is None and find_spec("pyautoattack") is not None:
        for part in ("", ".state"):
            sys.modules[f"autoattack{part}"] = import_module(f"pyautoattack{part}")
    if find_spec("pkg_resources") is None:  # gone from setuptools 81; one function of it is used
        stand_in: Any = ModuleType("pkg_resources")
        stand_in.resource_filename = lambda package, path: str(
            resources.files(package.partition(".")[0]) / path
        )
        sys.modules["pkg_resources"] = stand_in
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations of its imports, which its users cannot fix
            return import_module("robustbench.utils")
    except ImportError as error:
        raise BadInputError(f"RobustBench cannot be imported ({error}); run `{INSTALL}`") from error


def catalogue(zoo: Any) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    """Return the zoo's entries by (dataset, threat, name)."""
    return {
        (dataset.value, threat.value, name): entry
        for dataset, threats in zoo.all_models.items()
        for threat, models in threats.items()
        for name, entry in models.items()
    }


def resolve(known: Mapping[tuple[str, str, str], Any], request: ModelRequest) -> tuple[str, str, str]:
    """Return (dataset, threat, name) of a request; for a bare name the dataset follows from the classes.

    Raises:
        UnknownNameError: If the zoo has no such model.
        BadInputError: If the name alone stands for several models.
    """
    parts = tuple(request.rest.split("/"))
    if len(parts) == 3:
        if parts not in known:
            raise UnknownNameError("RobustBench model", request.rest, ["/".join(key) for key in known])
        return parts
    found = [key for key in known if key[2] == request.rest]
    if not found:
        raise UnknownNameError("RobustBench model", request.rest, {key[2] for key in known})
    classes = (
        len(request.class_names)
        if request.class_indices is None
        else max(outputs_of(request.class_indices)) + 1
    )
    least = min((count for count in OUTPUTS.values() if count >= classes), default=classes)
    fitting = [key for key in found if OUTPUTS[key[0]] == least] or found
    preferred = [key for key in fitting if key[1] == PREFERRED_THREAT] or fitting
    if len(preferred) > 1:
        full = " or ".join(repr("robustbench/" + "/".join(key)) for key in preferred)
        raise BadInputError(
            f"expected one model, got {request.name!r}, which stands for several; write {full}"
        )
    return preferred[0]


def declared_preprocess(declared: str | None, dataset: str, model: nn.Module, name: str) -> Preprocess:
    """Return the resize and crop that the zoo declares for a model.

    CIFAR's images are taken as they are; an ImageNet model without an entry of its own is one of timm's.

    Args:
        declared: What the zoo's entry says.
        dataset: That the model is for.
        model: The network, without the normalisation around it.
        name: On the command line, for the error.

    Raises:
        IncompatibleError: If it is none of those that are known.
    """
    if declared in PREPROCESSINGS:
        return PREPROCESSINGS[declared]
    config = getattr(model, "default_cfg", None)
    if declared is None and dataset != "imagenet":
        return Preprocess((32, 32), 32)
    if declared is None and config:
        return preprocess_of({"crop_mode": "center", **config}, name)
    raise IncompatibleError(
        f"the zoo must prepare the images of {name!r} by {', '.join(PREPROCESSINGS)}, got {declared!r}; choose another "
        "model"
    )


def unwrap(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...], nn.Module]:
    """Return mean, deviation and network of a model that RobustBench wrapped behind a normalisation.

    A network that normalises within its own forward pass keeps doing so: its mean is 0 and its deviation 1.
    """
    parts = dict(model.named_children())
    if isinstance(model, nn.Sequential) and list(parts) == ["normalize", "model"]:
        mean, std = (getattr(parts["normalize"], key).flatten().tolist() for key in ("mean", "std"))
        return tuple(mean), tuple(std), parts["model"]
    return (0.0,) * 3, (1.0,) * 3, model


def _build(zoo: Any, request: ModelRequest, dataset: str, threat: str, name: str) -> nn.Module:
    """Return the zoo's model with its weights, or with random ones."""
    folder = Path(torch.hub.get_dir()) / "robustbench"
    place = f"RobustBench's storage (kept in {folder})"
    trouble = import_module("gdown.exceptions").FileURLRetrievalError
    try:
        with seeded(request.seed), _old_checkpoints():
            if not request.pretrained:
                return _random(zoo, dataset, threat, name).eval()
            loaded: nn.Module = zoo.load_model(name, folder, dataset, threat)
            return loaded.eval()
    except (OSError, trouble) as error:
        raise unreachable(request.name, place, error, "TORCH_HOME") from error
    except UnpicklingError as error:
        raise BadInputError(
            f"the checkpoint of {request.name!r} in {folder} holds more than tensors; if you trust RobustBench's "
            "authors, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 and run again"
        ) from error
    except MALFORMED as error:
        raise _unbuilt(request, folder, error) from error


def _unbuilt(request: ModelRequest, folder: Path, error: Exception) -> BadInputError:
    """Return the error of a model that RobustBench cannot make, or not with the checkpoint that it keeps."""
    reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    if request.pretrained:
        return BadInputError(
            f"the checkpoint of {request.name!r} in {folder} is damaged or does not fit ({reason}); remove it and run "
            "again"
        )
    return BadInputError(
        f"RobustBench cannot build {request.name!r} with the installed timm ({reason}); choose another model"
    )


def _random(zoo: Any, dataset: str, threat: str, name: str) -> nn.Module:
    """Return the network of an entry with random weights; some entries stand for one that RobustBench gives timm."""
    registered = timm_name(dataset, threat, name)
    if registered:
        made: nn.Module = timm.create_model(registered, num_classes=OUTPUTS[dataset], pretrained=False)
        return made
    built: nn.Module = catalogue(zoo)[dataset, threat, name]["model"]()
    return built


def timm_name(dataset: str, threat: str, name: str) -> str:
    """Return the name under which RobustBench registers a model with timm; empty if it does not."""
    registered = f"{name.lower().replace('-', '_')}_{dataset.lower()}_{threat.lower()}"
    return registered if timm.is_model(registered) else ""


@contextlib.contextmanager
def _old_checkpoints() -> Iterator[None]:
    """Allow what training scripts of the zoo saved beside tensors: numpy numbers and argument lists."""
    scalar: Any = np.float64(0).__reduce__()[0]
    dtypes = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64")]
    with torch.serialization.safe_globals(
        [argparse.Namespace, np.dtype, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]
    ):
        yield
