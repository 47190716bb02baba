# SPDX-License-Identifier: Apache-2.0
"""Read the JSON files of a store, and refuse in one sentence what is damaged, foreign or too new."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from tta_bench.errors import StoreError
from tta_bench.records.schema import SCHEMA_VERSION, Manifest


def parse_manifest(text: bytes, path: str) -> Manifest:
    """Parse and validate the bytes of a manifest.

    Args:
        text: Content of ``manifest.json``.
        path: Where it was read, for the error message.

    Raises:
        StoreError: If it is not JSON, not a manifest, or of a newer schema version.
    """
    data = parse_json_object(text, path)
    check_version(data.get("schema_version"), path)
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(
            f"{path} is not a manifest of tta-bench: {where}: {first['msg']}; "
            "remove that cell folder and run the cell again"
        ) from error


def parse_json_object(text: bytes, path: str) -> dict[str, Any]:
    """Return the JSON object in a file of the store.

    Raises:
        StoreError: If the bytes are not JSON or not an object.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise StoreError(
            f"{path} should hold JSON and is damaged ({error}); remove it and run the cell again"
        ) from error
    if not isinstance(data, dict):
        raise StoreError(
            f"{path} should hold a JSON object, not a {type(data).__name__}; it is not from tta-bench, "
            "so choose another run folder"
        )
    return data


def check_version(version: object, path: str) -> None:
    """Refuse a schema version that this tta-bench cannot read.

    Raises:
        StoreError: If the version is missing, not a positive integer, or newer than ``SCHEMA_VERSION``.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise StoreError(
            f"{path} should give its schema_version as a positive integer, got {version!r}; "
            "it was not written by tta-bench, so choose another run folder"
        )
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer tta-bench (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}); upgrade with pip install -U tta-bench"
        )
