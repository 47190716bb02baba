# SPDX-License-Identifier: Apache-2.0
"""The hash of a class's code, also where there is no file: in a notebook or at a prompt."""

from __future__ import annotations

import inspect
from types import CodeType, FunctionType
from typing import Any

from tta_bench.spec.digest import digest


def code_hash(cls: type) -> str:
    """Return the hash of a class's source text, or of its bytecode where the text is not to be had."""
    try:
        return digest(inspect.getsource(cls), 16)
    except (OSError, TypeError):
        parts = {name: _facts(value) for name, value in vars(cls).items() if not name.startswith("__")}
        return digest([cls.__qualname__, parts], 16)


def _facts(value: Any) -> Any:
    """Return what a member of a class does, as values that can be hashed."""
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        return [_code(value.__code__), repr(value.__defaults__), repr(value.__kwdefaults__)]
    return (
        repr(value)
        if isinstance(value, str | int | float | bool | tuple | None)
        else type(value).__qualname__
    )


def _code(code: CodeType) -> Any:
    constants = [_code(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [code.co_code.hex(), constants, code.co_names, code.co_varnames]
