# SPDX-License-Identifier: Apache-2.0
"""Text from outside is shown and never obeyed, and passwords stay where they are."""

import csv
import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tta_bench.records.store import Store
from tta_bench.reports.csv_file import read_csv
from tta_bench.reports.leaderboard import leaderboard, write_csv
from tta_bench.reports.progress import ConsoleReporter, say
from tta_bench.reports.text import report_console
from tta_bench.spec.texts import from_spreadsheet, masked, spreadsheet_text, visible

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
