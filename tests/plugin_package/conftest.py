# SPDX-License-Identifier: Apache-2.0
"""Collect the package's tests only where the package is installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("tta_bench_example") else ["*"]
