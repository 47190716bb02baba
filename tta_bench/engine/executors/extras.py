# SPDX-License-Identifier: Apache-2.0
"""Import the packages of executors, which are extras."""

from __future__ import annotations

import importlib
from typing import Any

from tta_bench.errors import BadInputError


def imported(package: str, executor: str) -> Any:
    """Return the package that an executor needs.

    Raises:
        BadInputError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BadInputError(
            f"executor={executor} needs the package {package}, which cannot be imported ({error}); install it with "
            f'pip install "tta-bench[{executor}]", or use executor=local',
            options=("executor",),
        ) from error
