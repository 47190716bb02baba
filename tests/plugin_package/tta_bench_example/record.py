# SPDX-License-Identifier: Apache-2.0
"""Write ``golden.json`` again after a change of the method that is meant."""

from __future__ import annotations

import json
from pathlib import Path

from tta_bench.checks import golden_record
from tta_bench_example.prior import Prior


def main() -> None:
    """Write the scores of the method with its default hyper-parameters."""
    text = json.dumps({"Prior": golden_record(Prior())}, indent=None)
    Path(__file__).with_name("golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
