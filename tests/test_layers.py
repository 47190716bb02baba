# SPDX-License-Identifier: Apache-2.0
"""Imports go one way, adapters see only what an outside plug-in may, and modules stay small."""

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYERS = [
    {"errors", "spec"},
    {"registry", "config", "suites", "prompts", "names"},
    {"norms", "augment", "losses", "optim"},
    {"data"},
    {"models"},
    {"method"},
    {"plugins", "hyperparameters", "steps"},
    {"checks", "testing", "parity"},
    {"engine"},
    {"records"},
    {"metrics"},
    {"reports"},
    {"studies", "reproduction"},
    {"api"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
PLUGINS = {"adapters", "pocket"}
"""First-party plug-ins: the harness finds them by entry points and never imports them."""
ADAPTERS_MAY = {"method", "norms", "augment", "losses", "optim", "prompts", "errors"}
REPLAYS_MAY = {*ADAPTERS_MAY, "parity", "models", "steps"}
POCKET_MAY = {"data", "models", "errors", "spec"}
HARNESS = sorted(
    path
    for path in (ROOT / "tta_bench").rglob("*.py")
    if path.relative_to(ROOT / "tta_bench").parts[0] not in PLUGINS
)
POCKET = sorted((ROOT / "tta_bench" / "pocket").rglob("*.py"))
ADAPTERS = sorted((ROOT / "adapters").rglob("*.py"))


def imported(path):
    """Yield the first name below tta_bench of every import in a file, also of those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = node.module == "tta_bench"
            names = [f"tta_bench.{alias.name}" for alias in node.names] if whole else [node.module]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "tta_bench" and rest:
                yield rest.partition(".")[0]


@pytest.mark.parametrize("path", HARNESS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_above(path):
    own = path.relative_to(ROOT / "tta_bench").parts[0].removesuffix(".py")
    if own == "__init__":
        assert set(imported(path)) <= {"api"}
        return
    for name in imported(path):
        if name == "__version__":
            continue
        assert name not in PLUGINS, f"{path} imports {name}, which the harness finds by entry points only"
        allowed = (
            name == own or RANK[name] < RANK[own] or (RANK[name] == RANK[own] and name in ("spec", "errors"))
        )
        assert allowed or {name, own} <= LAYERS[RANK[own]], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.name)
def test_an_adapter_imports_what_an_outside_package_may(path):
    found = set(imported(path)) - {"adapters"}
    may = REPLAYS_MAY if path.parent.name == "replays" else ADAPTERS_MAY
    assert found <= may, f"{path.name} imports {sorted(found - may)}"


@pytest.mark.parametrize("path", POCKET, ids=lambda path: str(path.relative_to(ROOT)))
def test_pocket_imports_what_a_plug_in_of_datasets_and_models_may(path):
    found = set(imported(path)) - {"pocket"}
    assert found <= POCKET_MAY, f"{path.name} imports {sorted(found - POCKET_MAY)}"


@pytest.mark.parametrize("path", HARNESS + POCKET + ADAPTERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{path.name}: {node.name} has {lines} lines"


def test_value_objects_are_frozen():
    """Only what is filled while it is used may change."""
    changing = {"Live", "Session", "Moments", "Item"}
    found = set()
    for path in HARNESS + POCKET + ADAPTERS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
                text = ast.unparse(decorator)
                if text.startswith("dataclass") and "frozen=True" not in text:
                    found.add(node.name)
    assert found == changing


def test_the_table_of_the_architecture_is_the_tree():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| \S.* \|$", ARCHITECTURE, flags=re.MULTILINE)
    assert [int(layer) for layer, _ in rows] == sorted(int(layer) for layer, _ in rows)
    layers = [{name for layer, name in rows if int(layer) == rank} for rank in range(1, int(rows[-1][0]) + 1)]
    assert layers == LAYERS
    tree = {path.relative_to(ROOT / "tta_bench").parts[0].removesuffix(".py") for path in HARNESS}
    assert {name for _, name in rows} == tree - {"__init__"}


def test_the_plug_ins_of_the_architecture_may_import_what_the_tests_allow():
    rows = re.findall(r"^\| `(\w+)` \| \S.* \| (`.*`) \|$", ARCHITECTURE, flags=re.MULTILINE)
    found = {name: set(re.findall(r"`(\w+)`", allowed)) for name, allowed in rows}
    assert found == {"adapters": ADAPTERS_MAY, "pocket": POCKET_MAY}
    (replays,) = re.findall(r"A replay plan may also import (.*)\.", ARCHITECTURE)
    assert set(re.findall(r"`(\w+)`", replays)) == REPLAYS_MAY - ADAPTERS_MAY


def test_every_arrow_of_the_architecture_is_an_import():
    (picture,) = re.findall(r"```\n(.*?)```", ARCHITECTURE, flags=re.DOTALL)
    arrows = [
        pair
        for line in picture.splitlines()
        for pair in pairwise(re.split(r" ─+> ", re.split(r"\s{3,}", line)[0]))
    ]
    assert len(arrows) >= len(picture.splitlines())
    imports = {}
    for path in HARNESS:
        own = path.relative_to(ROOT / "tta_bench").parts[0].removesuffix(".py")
        imports.setdefault(own, set()).update(imported(path))
    for source, user in arrows:
        assert source in imports[user], f"{user} does not import {source}"


def test_the_packages_of_the_wheel_are_those_of_the_tree():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    inits = [path.parent for path in HARNESS + POCKET + ADAPTERS if path.name == "__init__.py"]
    dotted = {".".join(folder.relative_to(ROOT).parts) for folder in inits}
    expected = {f"tta_bench.{name}" if name.startswith("adapters") else name for name in dotted}
    assert set(settings["packages"]) == expected


def test_the_installed_entry_points_are_those_of_the_project_file():
    import tomllib

    from tta_bench import registry

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    for group in ("methods", "datasets", "models", "replays"):
        installed = {name: point.value for name, point in registry.registered(group).items()}
        ours = declared[f"tta_bench.{group}"]
        assert {name: installed.get(name) for name in ours} == ours, "run pip install -e . again"
