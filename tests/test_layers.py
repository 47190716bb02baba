# SPDX-License-Identifier: Apache-2.0
"""Imports go one way, adapters see only what an outside plug-in may, and modules stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"errors", "spec"},
    {"registry", "config", "suites"},
    {"norms", "augment", "losses", "optim"},
    {"data"},
    {"models"},
    {"method"},
    {"hyperparameters", "steps"},
    {"checks", "testing", "parity"},
    {"engine"},
    {"records"},
    {"metrics"},
    {"reports"},
    {"cli"},
    {"__main__"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
ADAPTERS_MAY = {"method", "norms", "augment", "losses", "optim", "errors"}
REPLAYS_MAY = ADAPTERS_MAY | {"parity", "steps"}
HARNESS = sorted((ROOT / "tta_bench").rglob("*.py"))
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
        assert not list(imported(path))
        return
    for name in imported(path):
        if name == "__version__":
            continue
        assert name != "adapters", f"{path} names a method; the harness finds methods by entry points only"
        allowed = (
            name == own or RANK[name] < RANK[own] or (RANK[name] == RANK[own] and name in ("spec", "errors"))
        )
        assert allowed or {name, own} <= LAYERS[RANK[own]], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", ADAPTERS, ids=lambda path: path.name)
def test_an_adapter_imports_what_an_outside_package_may(path):
    allowed = REPLAYS_MAY if path.parent.name == "replays" else ADAPTERS_MAY
    found = set(imported(path)) - {"adapters"}
    assert found <= allowed, f"{path.name} imports {sorted(found - allowed)}"


@pytest.mark.parametrize("path", HARNESS + ADAPTERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert lines <= 50, f"{path.name}: {node.name} has {lines} lines"


def test_the_packages_of_the_wheel_are_those_of_the_tree():
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent.relative_to(ROOT) for path in HARNESS if path.name == "__init__.py"}
    adapters = {".".join(("tta_bench", *path.parent.relative_to(ROOT).parts)) for path in ADAPTERS}
    expected = {".".join(folder.parts) for folder in folders} | adapters
    assert set(settings["packages"]) == expected


def test_the_installed_entry_points_are_those_of_the_project_file():
    import tomllib

    from tta_bench import registry

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    for group in ("methods", "datasets", "models", "replays"):
        installed = {name: point.value for name, point in registry.registered(group).items()}
        ours = declared[f"tta_bench.{group}"]
        assert {name: installed.get(name) for name in ours} == ours, "run pip install -e . again"
