# SPDX-License-Identifier: Apache-2.0
"""A package outside the project is installed, found, listed, validated and run as a built-in method is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).with_name("plugin_package")
BAD_INPUT = 2


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """Install the package into a folder of its own, from a copy, so that the build leaves no traces."""
    copy, target = tmp_path_factory.mktemp("build") / "package", tmp_path_factory.mktemp("site")
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
    command = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--target",
        str(target),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *command, str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def python(*arguments, path, folder):
    places = [str(path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment, cwd=folder
    )


@pytest.fixture
def tta_bench(installed, tmp_path):
    """Return the command line, with the package and optionally others on the path."""

    def call(*arguments, also=()):
        path = os.pathsep.join(map(str, [installed, *also]))
        return python("-m", "tta_bench", *arguments, path=path, folder=tmp_path)

    return call


def fake_package(folder, name, module, text, point, group="methods"):
    """Install a package of one module by hand."""
    folder.mkdir()
    (folder / f"{module}.py").write_text(text, encoding="utf-8")
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[tta_bench.{group}]\n{point}\n", encoding="utf-8")
    return folder


def refused(done, *words):
    """Assert that a command ended with one sentence on stderr, without a traceback, and exit code 2."""
    assert done.returncode == BAD_INPUT, done.stderr + done.stdout
    assert done.stderr.startswith("tta-bench: ")
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr


def test_it_is_listed_with_its_summary_and_package(tta_bench):
    done = tta_bench("list", "methods", "--csv")
    assert done.returncode == 0, done.stderr
    rows = [line.split(",") for line in done.stdout.splitlines()]
    row = next(row for row in rows if row[0] == "example-prior")
    assert "Divide the probabilities" in row[1]
    assert "tta-bench-example" in row
    assert "example," in tta_bench("list", "models", "--csv").stdout


def test_it_is_validated_with_its_golden_scores(tta_bench):
    done = tta_bench("validate", "example-prior")
    assert done.returncode == 0, done.stdout + done.stderr
    status = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if " passed " in line}
    assert status["vmap_equals_loop"] == status["golden_scores_agree"] == "passed"
    assert "example-prior: " in done.stdout


def test_its_own_tests_pass_where_it_is_installed(installed, tmp_path):
    tests = tmp_path / "tests"
    shutil.copytree(PACKAGE / "tests", tests, ignore=shutil.ignore_patterns("__pycache__"))
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), path=installed, folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert " failed" not in done.stdout
    assert " passed" in done.stdout


def test_it_runs(tta_bench, tmp_path):
    output = tmp_path / "run"
    done = tta_bench(
        "run", "--method", "example-prior", "--dataset", "pocket", "--limit", "32", "--output", str(output)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "example-prior" in done.stdout
    assert list(output.rglob("*.parquet"))


def test_its_model_family_runs(tta_bench, tmp_path):
    output = tmp_path / "run"
    done = tta_bench(
        "run", "--method", "source", "--model", "example/small", "--dataset", "pocket", "--limit", "32",
        "--output", str(output),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(output.rglob("*.parquet"))


def test_an_unknown_method_or_model_is_answered_with_the_nearest(tta_bench):
    refused(tta_bench("validate", "example-prio"), "unknown method", "did you mean 'example-prior'?")
    refused(
        tta_bench(
            "run", "--method", "source", "--model", "example/smal", "--dataset", "pocket", "--limit", "4"
        ),
        "unknown example model 'smal'; did you mean 'small'?",
    )


def test_two_packages_with_one_name_are_named(tta_bench, tmp_path):
    other = fake_package(
        tmp_path / "other", "tta-bench-rival", "rival", "class Prior: ...", "example-prior = rival:Prior"
    )
    for command in (("list", "methods"), ("validate", "example-prior")):
        done = tta_bench(*command, also=[other])
        refused(done, "'example-prior' is registered twice", "tta-bench-example", "tta-bench-rival")


def test_a_broken_package_is_named_and_does_not_hide_the_others(tta_bench, tmp_path):
    text = "import no_such_module"
    broken = fake_package(tmp_path / "broken", "tta-bench-broken", "broken", text, "thing = broken:Thing")
    done = tta_bench("validate", "thing", also=[broken])
    refused(done, "method 'thing' of tta-bench-broken", "No module named 'no_such_module'")
    done = tta_bench("list", "methods", also=[broken])
    assert done.returncode == 0
    assert "example-prior" in done.stdout
