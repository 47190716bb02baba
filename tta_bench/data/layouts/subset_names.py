# SPDX-License-Identifier: Apache-2.0
"""Names of subsets that the literature gave a list of their own."""

from __future__ import annotations

ROBUSTBENCH = "robustbench-5k"
