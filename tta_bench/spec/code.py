# SPDX-License-Identifier: Apache-2.0
"""The hash of code: of a class, also where there is no file, and of a module with the modules that it reaches."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
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


_FILE = re.compile(r"tta_bench_plugin_[0-9a-f]+_(?P<stem>.*)")
"""Name of a module that was loaded from a file, whose place does not matter."""


def module_texts(module: str, shared: Collection[str] = ()) -> dict[str, str]:
    """Return the source text of a module and of the modules that it reaches, by name.

    They are those of its own package, those that are named as shared, and all that are not installed: what was
    installed is told apart by its version.

    Args:
        module: Name of a module that is imported.
        shared: Names of modules that belong to the text wherever they are imported.
    """
    texts: dict[str, str] = {}
    waiting, package = [module], _own_package(module)
    while waiting:
        name = waiting.pop()
        path = _source_file(name)
        match = _FILE.fullmatch(name)
        key = f"tta_bench_plugin_{match['stem']}" if match else name
        if key in texts or path is None:
            continue
        texts[key] = path.read_text(encoding="utf-8", errors="replace")
        loaded = sys.modules.get(name)
        waiting += [
            other
            for other in _imported(texts[key], getattr(loaded, "__package__", None) or "")
            if other in shared or (package and f"{other}.".startswith(f"{package}.")) or _own_code(other)
        ]
    return texts


def _own_package(module: str) -> str:
    """Return the package whose modules belong to a method: the outermost, but for the built-in methods theirs."""
    top, dot, _ = module.partition(".")
    return module.rpartition(".")[0] if top == "tta_bench" else top if dot else ""


def _own_code(name: str) -> bool:
    """Return whether a module is neither ours, nor Python's, nor installed."""
    top = name.partition(".")[0]
    if top == "tta_bench" or top in sys.stdlib_module_names:
        return False
    path = _source_file(name)
    return path is not None and not any(path.is_relative_to(folder) for folder in _installed())


@lru_cache
def _installed() -> tuple[Path, ...]:
    """Return the folders of installed packages, Python's own among them."""
    named = {sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    named |= {one for one in sys.path if Path(one).name in ("site-packages", "dist-packages")}
    return tuple(Path(one).resolve() for one in named)


def _source_file(name: str) -> Path | None:
    """Return the file of a module's source text, None where there is none; no package is imported to find it."""
    module = sys.modules.get(name)
    if module is None:
        parent = name.rpartition(".")[0]
        if parent and parent not in sys.modules:
            return None
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):  # what is imported may be no module
            return None
        origin = spec.origin if spec is not None and spec.has_location else None
    else:
        origin = _origin(module)
    return Path(origin).resolve() if origin and origin.endswith(".py") and Path(origin).is_file() else None


def _origin(module: ModuleType) -> str | None:
    try:
        return inspect.getsourcefile(module)
    except TypeError:  # a built-in module, or a folder without an __init__.py
        return None


def _imported(text: str, package: str) -> Iterator[str]:
    """Yield the full names of what a module's text imports, as far as they may be modules."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # beyond the outermost package
                continue
            yield from (*_with_parents(base), *(f"{base}.{alias.name}" for alias in node.names))


def _with_parents(module: str) -> Iterator[str]:
    """Yield a module's name and those of the packages around it, whose code runs first."""
    parts = module.split(".")
    yield from (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
