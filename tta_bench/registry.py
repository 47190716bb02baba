# SPDX-License-Identifier: Apache-2.0
"""Names to objects through public entry-point groups; built-ins and outside packages use the same ones.

Nothing is imported until its name is asked for, and a summary is read from the source text, so that listing
costs no import of torch.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from tta_bench.errors import PluginError, UnknownNameError

Group = Literal["methods", "datasets", "models", "replays"]
PLUGIN = "tta_bench_plugin_"
"""Prefix of the module names that plug-in files are imported under."""
FAILURES = (Exception, SystemExit)
"""Exceptions expected from other people's code: anything but the user's interruption."""
ANYTHING = (BaseException,)
"""Exceptions expected from a method while its cell runs; the user's interruption is caught before it."""


class FilePoint(NamedTuple):
    """A named object of a plug-in file, in place of an entry point.

    Attributes:
        name: The name.
        module: The module that the file was imported as.
        path: The file.
        title: One line for lists.
        found: The object.
    """

    name: str
    module: str
    path: str
    title: str
    found: Any

    @property
    def value(self) -> str:
        """Return where the object lies, for messages."""
        return self.path

    @property
    def attr(self) -> str:
        """Return the name again: a file's objects have no other."""
        return self.name

    def load(self) -> Any:
        """Return the object."""
        return self.found


Point = EntryPoint | FilePoint
_of_files: dict[Group, dict[str, FilePoint]] = {}


def add(group: Group, point: FilePoint) -> None:
    """Make an object of a plug-in file known to this process; the same file may give it again.

    Raises:
        PluginError: If a package or another file has the name.
    """
    other = registered(group).get(point.name)
    if other is not None and not (isinstance(other, FilePoint) and other.path == point.path):
        raise PluginError(
            f"{group[:-1]} {point.name!r} of {point.path} is also one of {owner(other)}; give it another name"
        )
    _of_files.setdefault(group, {})[point.name] = point


def registered(group: Group) -> Mapping[str, Point]:
    """Return what is registered in a group by name: entry points of packages, and objects of plug-in files.

    Raises:
        PluginError: If two packages claim one name for different objects.
    """
    packages, files = _packages(group), _of_files.get(group)
    return dict(sorted({**packages, **files}.items())) if files else packages


@lru_cache
def _packages(group: Group) -> Mapping[str, Point]:
    found: dict[str, Point] = {}
    for point in entry_points(group=f"tta_bench.{group}"):
        first = found.setdefault(point.name, point)
        if first.value != point.value:
            raise PluginError(
                f"{group[:-1]} {point.name!r} is registered twice, by {owner(first)} ({first.value}) and by "
                f"{owner(point)} ({point.value}); uninstall one of them or ask its author for another name"
            )
    return dict(sorted(found.items()))


def owner(point: Point) -> str:
    """Return the distribution or the file that registered a name."""
    if isinstance(point, FilePoint):
        return point.path
    return point.dist.name if point.dist is not None else "an unnamed package"


def brief(error: BaseException) -> str:
    """Return the type of an error and the first line of what it says."""
    try:
        said = str(error)
    except FAILURES as failure:  # an error of foreign code may fail to say what it is
        said = f"its text cannot be shown ({type(failure).__name__})"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])


def load(group: Group, name: str) -> Any:
    """Import and return the object that a name stands for.

    Raises:
        UnknownNameError: If no package registers the name.
        PluginError: If its module cannot be imported; the cause is chained.
    """
    known = registered(group)
    if name not in known:
        raise UnknownNameError(group[:-1], name, known, f"`tta-bench list {group}` shows all")
    point = known[name]
    try:
        return point.load()
    except FAILURES as error:
        raise PluginError(
            f"{group[:-1]} {name!r} of {owner(point)} ({point.value}) cannot be imported: "
            f"{brief(error)}; fix or uninstall that package"
        ) from error


def built_in(point: Point) -> bool:
    """Return whether an entry point names an object of this package."""
    return point.module.partition(".")[0] == __name__.partition(".")[0]


def summary(point: Point) -> str:
    """Return one line about an entry point's object, read from its source without importing it or its package.

    It is the first line of its docstring, or the ``title`` of a call that makes it, or the module's first line.
    """
    if isinstance(point, FilePoint):
        return point.title
    source = _source(point.module)
    if source is None:
        return f"cannot be imported: no module named {point.module!r}"
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"cannot be imported: {brief(error)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
        if isinstance(node, ast.Assign) and (title := _title(node, point.attr)):
            return title
    return (ast.get_docstring(tree) or "").partition("\n")[0]


def _title(node: ast.Assign, name: str) -> str:
    """Return the text that an assignment to a name gives as ``title`` of a call; empty if it is none."""
    named = any(isinstance(target, ast.Name) and target.id == name for target in node.targets)
    keywords = node.value.keywords if named and isinstance(node.value, ast.Call) else []
    found = [one.value for one in keywords if one.arg == "title"]
    return next((v.value for v in found if isinstance(v, ast.Constant) and isinstance(v.value, str)), "")


def _source(module: str) -> Path | None:
    """Return the source file of a module; unlike `importlib.util.find_spec`, no package above it is imported."""
    places: Sequence[str] | None = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
        found = (find(name, places) for find in finders if find is not None)
        spec = next((one for one in found if one is not None), None)
        if spec is None or (depth < len(parts) and spec.submodule_search_locations is None):
            return None
        places = spec.submodule_search_locations
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def load_file(path: Path) -> ModuleType:
    """Import one Python file as a module of its own, for ``--plugin FILE`` and ``validate FILE``.

    It is imported again each time: it, or what it imports, may have been edited.

    Raises:
        PluginError: If there is no such file or it cannot be imported.
    """
    if not path.is_file():
        raise PluginError(f"expected a Python file, got {str(path)!r}, which does not exist; check the path")
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = f"{PLUGIN}{place}_{path.stem}"  # two files may have one stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"expected a Python file ending in .py, got {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except FAILURES as error:
        del sys.modules[name]
        raise PluginError(f"{path} cannot be imported: {brief(error)}; fix the file") from error
    return module
