# SPDX-License-Identifier: Apache-2.0
"""The file of options in the documents is complete, and runs."""

import re
from pathlib import Path

import yaml

from tta_bench.config import file_options, key_of, read_config

TEXT = (Path(__file__).parents[1] / "docs" / "running.md").read_text(encoding="utf-8")


def test_the_documented_file_holds_every_option_and_is_planned(tta_bench, tmp_path):
    (block,) = re.findall(r"<!-- config: begin -->\n```yaml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "run.yaml"
    path.write_text(block, encoding="utf-8")
    assert set(yaml.safe_load(block)) == {key_of(one) for one in file_options().values()}
    assert read_config(path)["presets"] == {"tent": "imagenet-c"}
    done = tta_bench("run", "--config", path, "--dry-run")
    assert done.code == 0, done.err
    assert len([line for line in done.out.splitlines() if " · " in line]) == 4 * 2 * 2
    assert "tent[" in done.out
