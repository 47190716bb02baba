# SPDX-License-Identifier: Apache-2.0
"""The text side that methods of CLIP-like models ask for."""

from __future__ import annotations

from tta_bench.errors import IncompatibleError
from tta_bench.method import SourceModel, TextSide


def text_side(source: SourceModel) -> TextSide:
    """Return the text side of a source model.

    Raises:
        IncompatibleError: If it has none.
    """
    if source.text is None:
        raise IncompatibleError(
            f"the method needs a text side, which {source.name!r} does not have; choose a CLIP-like "
            "model, e.g. pocket-clip"
        )
    return source.text
