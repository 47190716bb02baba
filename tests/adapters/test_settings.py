# SPDX-License-Identifier: Apache-2.0
"""Hyper-parameters of the registered methods: how text stands for them, and that none of them may be NaN."""

import dataclasses

import pytest
from tta_bench.adapters.apm._dims import Dims

from tta_bench import registry
from tta_bench.errors import BadInputError
from tta_bench.hyperparameters import create_method

DIMS = Dims((8, 12), 4, (3, 2), 8, (10, 8, 6))


def floats():
    """Every method with each hyper-parameter that is a number with a point, and NaN in its place."""
    nan = float("nan")
    for name in registry.registered("methods"):
        for field in dataclasses.fields(registry.load("methods", name)):
            default = field.default
            if isinstance(default, float):
                yield pytest.param(name, field.name, nan, id=f"{name}-{field.name}")
            elif isinstance(default, tuple) and any(isinstance(part, float) for part in default):
                for index in range(len(default)):
                    value = (*default[:index], nan, *default[index + 1 :])
                    yield pytest.param(name, field.name, value, id=f"{name}-{field.name}-{index}")


@pytest.mark.parametrize(("name", "key", "value"), [*floats()])
def test_nan_is_refused(name, key, value):
    with pytest.raises(BadInputError, match=rf"\b{key}\b.*, got .*nan"):
        registry.load("methods", name)(**{key: value})


@pytest.mark.parametrize(
    ("method", "key", "text", "value"),
    [
        ("tent", "layers", "batch", ("batch",)),
        ("tent", "layers", "batch,", ("batch",)),
        ("tent", "layers", "batch,layer", ("batch", "layer")),
        ("tent", "layers", '["batch", "group"]', ("batch", "group")),
        ("tent", "betas", "0.8,0.9", (0.8, 0.9)),
        ("tent", "betas", "[0.8, 0.9]", (0.8, 0.9)),
        ("sar", "layers", "blocks.0.norm1", ("blocks.0.norm1",)),
        ("apm", "dims", "[[8, 12], 4, [3, 2], 8, [10, 8, 6]]", DIMS),
        ("apm", "dims", '{"image": [8, 12], "patch": 4, "grid": [3, 2], "code": 8, "widths": [10, 8, 6]}', DIMS),
        ("apm", "dims", "none", None),
    ],
)  # fmt: skip
def test_text_is_read_as_the_type_of_the_hyper_parameter(method, key, text, value):
    assert getattr(create_method(method, {key: text}), key) == value


@pytest.mark.parametrize(
    ("method", "key", "text"),
    [
        ("tent", "layers", "bach"), ("tent", "layers", ""), ("tent", "betas", "0.9"), ("tent", "betas", "[0.9, 0.9"),
        ("apm", "dims", "[4, 4]"), ("apm", "dims", "[[8, 12], 4"), ("tent", "lr", "[1]"),
    ],
)  # fmt: skip
def test_text_of_another_type_is_refused_with_what_was_given(method, key, text):
    with pytest.raises(BadInputError, match=f"hyper-parameter {key} of {method}: ") as caught:
        create_method(method, {key: text})
    assert f"got {text!r}; write it as {key}=" in str(caught.value)
