# SPDX-License-Identifier: Apache-2.0
"""Text from outside is shown and never obeyed, and passwords stay where they are."""

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from tta_bench.cli import listing
from tta_bench.records.store import Store
from tta_bench.reports.columns import Row
from tta_bench.reports.csv_file import read_csv
from tta_bench.reports.leaderboard import leaderboard, write_csv
from tta_bench.reports.progress import ConsoleReporter, say
from tta_bench.reports.results import Results
from tta_bench.reports.table import print_table
from tta_bench.reports.text import report_console
from tta_bench.spec.texts import from_spreadsheet, masked, spreadsheet_text, visible
from tta_bench.studies.islands.dense import DenseRow
from tta_bench.studies.islands.files import write_rows

from ..records.synthetic import manifest, put_cell, records  # noqa: TID252  "tests" is no installed package

EVIL = "a\x1b]0;title\x07\x1b[2Jb\rc\x9bd\u202ee"


def test_control_characters_are_escapes():
    assert visible(EVIL) == r"a\x1b]0;title\x07\x1b[2Jb\rc\x9bd\u202ee"
    assert visible("größe 図 🎉\n\tx") == "größe 図 🎉\n\tx"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ftp://me:pass@host/x", "ftp://me:***@host/x"),
        ("s3://bucket/x", "s3://bucket/x"),
        ("see https://a:b@c/d and http://e:f@g", "see https://a:***@c/d and http://e:***@g"),
        ("https://c/d?token=abc&x=1", "https://c/d?token=***&x=1"),
        ("wds:https://:secret@c/{00..99}.tar", "wds:https://:***@c/{00..99}.tar"),
        ("C:\\x@y", "C:\\x@y"),
    ],
)
def test_passwords_of_urls_are_masked(url, shown):
    assert masked(url) == masked(shown) == shown


@given(st.text())
def test_a_field_of_a_spreadsheet_is_never_a_formula_and_comes_back(text):
    field = spreadsheet_text(text)
    assert not field.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    if text.isprintable() and masked(text) == text:
        assert from_spreadsheet(field) == text


def test_nothing_printed_obeys_a_name(capsys):
    from rich.table import Table

    console = report_console()
    with ConsoleReporter(console, 1) as reporter:
        reporter.cell_started(EVIL, 0, 1)
        reporter.cell_ended(EVIL, "failed", EVIL)
    say(console, EVIL)
    table = Table(EVIL)
    table.add_row(EVIL)
    console.print(table)
    console.print(EVIL)
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\r\x9b\u202e")
    assert out.count(r"\x1b]0;title") >= 5


def test_no_table_obeys_a_name(capsys):
    row = Row(method=EVIL, variant=EVIL, model=EVIL, dataset=EVIL, shifts=EVIL, status="failed", sees="image")
    print_table([row, Row(method="b", model="c", dataset="d", status="failed")], report_console())
    report_console().print(Text(EVIL))
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\r\x9b\u202e")
    assert out.count(r"\x1b]0;title") >= 5


def test_what_python_shows_obeys_no_name_either(tmp_path):
    store = Store(tmp_path / "runs").open(create=True)
    names = {"method": EVIL, "model": EVIL, "dataset": EVIL, "shifts": (EVIL,), "variant": EVIL}
    columns = records(100, shift=EVIL) | {"image_id": [f"{EVIL}/{i}" for i in range(100)]}
    put_cell(store, manifest("c", cell=names), columns)
    failed = manifest("f", cell={"method": EVIL}, status="failed", error=f"Traceback\n{EVIL}")
    store.writer("f", resume=False).finish(failed)
    results = Results((store.url,))
    frame, summary = results.frame(), results.summary(allow_mixed=True)
    shown = [repr(results), str(results), frame.to_string(), summary.to_string(), *results.failed()]
    shown += [*results.failed().values(), results._repr_html_(), frame.to_csv(), summary.to_csv()]
    assert not [text for text in shown if set(text) & set("\x1b\x07\x9b\u202e")]
    assert frame["image_id"][3].startswith(r"a\x1b]0;title")
    assert str(summary["method"][0]) == visible(EVIL)


def test_a_list_as_csv_holds_no_formula(capsys, monkeypatch):
    monkeypatch.setattr(listing, "_registered", lambda kind: [("=cmd", f"+{EVIL}", "@pack")])
    listing.list_names(listing.Kind.models, as_csv=True)
    head, line = csv.reader(io.StringIO(capsys.readouterr().out))
    assert head == ["name", "summary", "package"]
    assert line == ["'=cmd", f"'+{visible(EVIL)}", "'@pack"]


def test_names_of_images_in_a_study_are_text(tmp_path):
    rows = [DenseRow("=1+1.png", EVIL, 1, 2, -0.5, 0.25, 0.125)]
    write_rows(rows, tmp_path / "dense.csv")
    (row,) = csv.DictReader(io.StringIO((tmp_path / "dense.csv").read_text("utf-8")))
    assert (row["image"], row["model"], row["fitted"]) == ("'=1+1.png", visible(EVIL), "-0.5")


def test_names_in_a_leaderboard_are_text(tmp_path):
    store = Store(tmp_path / "runs").open(create=True)
    facts = manifest("c", cell={"method": "=cmd|' /C calc'!A0", "model": "@sum\r\nx", "variant": "+1"})
    put_cell(store, facts, records(100))
    write_csv(leaderboard([store.url]), tmp_path / "table.csv")
    content = (tmp_path / "table.csv").read_bytes()
    assert b"\r" not in content
    (row,) = csv.DictReader(io.StringIO(content.decode()))
    assert row["method"] == "'=cmd|' /C calc'!A0"
    assert row["variant"] == "'+1"
    (read,) = read_csv(tmp_path / "table.csv")
    assert (read.method, read.variant) == ("=cmd|' /C calc'!A0", "+1")


def test_a_manifest_masks_passwords_and_keeps_its_id(tmp_path):
    from tta_bench.records.health import sound_manifest

    made = manifest(
        "x",
        cell={"dataset": "wds:https://me:hidden@host/a.tar", "shifts": ("wds:https://me:hidden@host/a.tar",)},
    )
    made = replace(made, id=made.cell.id(made.protocol))
    store = Store(tmp_path / "runs").open(create=True)
    put_cell(store, made, records(100))
    content = (tmp_path / "runs/cells" / made.id / "manifest.json").read_text()
    assert "hidden" not in content
    assert json.loads(content)["cell"]["dataset"] == "wds:https://me:***@host/a.tar"
    assert sound_manifest(store, made.id).id == made.id


def test_messages_about_a_run_folder_mask_its_password():
    store = Store("memory://me:hidden@host/x")
    with pytest.raises(Exception, match=r"me:\*\*\*@host"):
        store.open(create=False)
