# SPDX-License-Identifier: Apache-2.0
"""Hashes and seeds that are the same for equal values on every platform."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, the same for equal values on every platform."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def digest(value: Any, length: int = 64) -> str:
    """Return the SHA-256 of a JSON-like value, in hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def counter_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on every part: the same parts, the same seed, in any order of calls."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
