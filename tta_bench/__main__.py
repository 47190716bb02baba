# SPDX-License-Identifier: Apache-2.0
"""``python -m tta_bench`` is ``tta-bench``."""

from tta_bench.cli import main

if __name__ == "__main__":
    main()
