# SPDX-License-Identifier: Apache-2.0
"""Several names in one argument, ``tent,eata``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_COMMA = re.compile(r",(?![^\[]*\])")
"""A comma outside of brackets: ``tent[lr=1,steps=2],eata`` are two names."""


def split_names(texts: Iterable[str]) -> list[str]:
    """Return the names in texts that may hold several each, joined by commas."""
    return [name.strip() for text in texts for name in _COMMA.split(text) if name.strip()]
