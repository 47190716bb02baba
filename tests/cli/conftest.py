# SPDX-License-Identifier: Apache-2.0
"""Run folders with known contents, as the tests of reports have them."""

from ..reports.conftest import cell, make  # noqa: F401, TID252
