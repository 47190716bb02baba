# SPDX-License-Identifier: Apache-2.0
"""What is printed is the text itself, on every console; listing imports nobody's package."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tta_bench import registry
from tta_bench.reports.text import report_console


def installed(folder, name, text, group="datasets", entry="mine"):
    """Write a package with one module and one entry point."""
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[tta_bench.{group}]\n{entry} = {name}:MINE\n", encoding="utf-8")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    registry._packages.cache_clear()
    yield place
    registry._packages.cache_clear()
    for name in [name for name in sys.modules if name.startswith("outside_")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["cifar10-c:fog:1", "[b]x[/b] [/]", ":warning:"])
def test_one_console_prints_text_as_it_is(name, capsys):
    from rich.table import Table

    console = report_console()
    table = Table("shift")
    table.add_row(name)
    console.print(table)
    console.print(name)
    assert capsys.readouterr().out.count(name) == 2


def test_every_command_uses_the_one_console():
    from pathlib import Path

    import tta_bench

    root = Path(tta_bench.__file__).parent
    texts = {path.name: path.read_text(encoding="utf-8") for path in root.rglob("*.py")}
    assert not [name for name, text in texts.items() if " Console(" in text]
    assert [name for name, text in texts.items() if " PlainConsole(" in text] == ["text.py"]


def test_data_check_prints_shifts_as_they_are(tta_bench, tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path))
    (tmp_path / "CIFAR-10-C").mkdir()
    for corruption in ("fog", "snow", "brightness"):
        np.save(tmp_path / "CIFAR-10-C" / f"{corruption}.npy", np.zeros((5, 32, 32, 3), np.uint8))
    np.save(tmp_path / "CIFAR-10-C" / "labels.npy", np.zeros(5, np.int64))
    done = tta_bench("data", "check", "cifar10-c", "--severity", "1")
    for corruption in ("fog", "snow", "brightness"):
        assert f"cifar10-c:{corruption}:1:" in done.out


def test_data_list_takes_any_folder_name(tta_bench, tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path / "a [/b] [red]c"))
    done = tta_bench("data", "list")
    assert done.code == 0
    assert "a [/b] [red]c (TTA_BENCH_DATA)" in done.out


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_a_console_without_the_letters_gets_escapes(tmp_path, encoding):
    place = tmp_path / "β 図"
    for label in ("a", "b"):
        (place / label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(place / label / "0.png")
    code = "import sys; from tta_bench.cli import main; sys.argv = ['tta-bench', *sys.argv[1:]]; main()"
    environment = {
        "PYTHONIOENCODING": encoding,
        "TTA_BENCH_DATA": str(place),
        "PATH": "",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "list"], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = f"Looked in {place}".encode(encoding, "backslashreplace")
    assert expected in done.stdout


def test_lists_import_no_package(tta_bench, packages, tmp_path, monkeypatch):
    monkeypatch.setenv("TTA_BENCH_DATA", str(tmp_path))
    source = '"""Cats."""\nraise SystemExit("imported")\nMINE = Dataset(name="mine", title="Cats and dogs")\n'
    installed(packages, "outside_cats", source)
    for command in (("list", "datasets"), ("data", "list")):
        done = tta_bench(*command)
        assert done.code == 0, done.err
        assert "Cats and dogs" in done.out
        assert "outside_cats" in done.out
        assert "outside_cats" not in sys.modules


def test_the_package_above_a_module_is_not_imported_either(packages):
    folder = packages / "outside_pack"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (folder / "inner.py").write_text('def MINE(rest):\n    """Say it."""\n', encoding="utf-8")
    point = registry.EntryPoint("mine", "outside_pack.inner:MINE", "tta_bench.datasets")
    assert registry.summary(point) == "Say it."
    assert "outside_pack" not in sys.modules


@pytest.mark.parametrize("text", ["def MINE(:\n", "\x00", "x = (" * 200, b"\xff\xfe\x00"])
@pytest.mark.parametrize("kind", ["methods", "datasets", "models"])
def test_a_package_that_is_no_python_is_named_and_the_others_listed(tta_bench, packages, kind, text):
    installed(packages, "outside_broken", "", group=kind, entry="zzz")
    content = text if isinstance(text, bytes) else text.encode()
    (packages / "outside_broken.py").write_bytes(content)
    done = tta_bench("list", kind)
    assert done.code == 0, done.err
    assert "zzz" in done.out
    assert "cannot be imported: " in done.out
    assert {"methods": "tent", "datasets": "pocket-c", "models": "timm"}[kind] in done.out


def test_cautions_are_sentences(monkeypatch, capsys):
    import warnings

    from tta_bench import cli
    from tta_bench.errors import Caution

    def app():
        warnings.warn("mind the batch", Caution, stacklevel=1)

    monkeypatch.setattr(cli, "app", app)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main()
    assert capsys.readouterr().err == "tta-bench: note: mind the batch\n"
