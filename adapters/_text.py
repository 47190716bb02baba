# SPDX-License-Identifier: Apache-2.0
"""The text side that methods on CLIP-like models start from."""

from __future__ import annotations

from tta_bench.errors import IncompatibleError
from tta_bench.method import SourceModel, TextSide


def text_side(method: object, source: SourceModel) -> TextSide:
    """Return the text side of a source model.

    Raises:
        IncompatibleError: If it has none.
    """
    if source.text is None:
        raise IncompatibleError(
            f"{type(method).__name__} needs a text side, and {source.name!r} has none; choose a CLIP-like model, "
            "e.g. pocket-clip"
        )
    return source.text
