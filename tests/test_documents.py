# SPDX-License-Identifier: Apache-2.0
"""What the documents show works as they show it."""

import re
import textwrap
from pathlib import Path

from tta_bench.checks import check_method
from tta_bench.hyperparameters import methods_in_file

ROOT = Path(__file__).parents[1]


def test_the_method_of_the_guide_for_contributors_is_complete(tmp_path):
    block, _ = re.findall(
        r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
    )
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(block), encoding="utf-8")
    ((name, method),) = methods_in_file(path).items()
    assert name == "mine"
    assert not [result for result in check_method(method()) if result.bad]


def test_links_between_documents_lead_somewhere():
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
        *ROOT.glob("results/*/*.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
