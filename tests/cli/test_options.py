# SPDX-License-Identifier: Apache-2.0
"""The command line has one flag for every declared option, and its errors name flags where Python names options."""

import inspect

import pytest

from tta_bench.cli.options import for_terminal
from tta_bench.cli.run import run
from tta_bench.errors import BadInputError
from tta_bench.spec import Controls, Request
from tta_bench.spec.options import options_of


def test_every_declared_option_is_a_flag_of_run_and_a_key_of_a_file(tta_bench, tmp_path):
    shown = tta_bench("run", "--help").out
    declared = {**options_of(Request), **options_of(Controls)}
    assert set(inspect.signature(run).parameters) == {name for name in declared if name != "preset"} | {
        "config", "suite", "flops", "dry_run", "print_config",
    }  # fmt: skip
    for one in declared.values():
        if one.flag:
            assert one.flag.partition("/")[0] in shown
    path = tmp_path / "all.yaml"
    values = {"seeds": 3, "severities": "1-2", "methods": "source", "datasets": ["pocket"], "presets": {}}
    given = {one.name: values.get(one.name, one.default) for one in options_of(Request).values()}
    lines = [
        f"{name}: {list(v) if isinstance(v, tuple) else v}"
        for name, v in given.items()
        if v not in (None, "")
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    done = tta_bench("run", "--config", path, "--dry-run")
    assert done.code == 0, done.err
    assert "seed 3" in done.out


@pytest.mark.parametrize(
    ("sentence", "option", "shown"),
    [
        ("severities must be 1 to 5", "severities", "--severity must be 1 to 5"),
        ("batch_size must be 1 or more", "batch_size", "--batch-size must be 1 or more"),
        ("pass allow_mixed=True to show them", "allow_mixed", "pass --allow-mixed to show them"),
        ("another folder with output=", "output", "another folder with --output"),
        (
            "'prompts' is none; choose with prompts=NAME",
            "prompts",
            "'prompts' is none; choose with --prompts NAME",
        ),
        ("it needs a model", "models", "it needs a model (--model)"),
        ("run it again with memory=True", "memory", "run it again with --memory"),
        ("or use pretrained=False for timing", "pretrained", "or use --no-pretrained for timing"),
        ('leave them out with bad_image="skip"', "bad_image", "leave them out with --on-bad-image skip"),
    ],
)
def test_errors_name_the_flags(sentence, option, shown):
    assert for_terminal(BadInputError(sentence, options=(option,))) == shown
