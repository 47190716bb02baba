# SPDX-License-Identifier: Apache-2.0
"""Golden methods that hang on the sign of rounding errors, and where these fall as the reference's did."""

import torch

SIGN_OF_ROUNDING = frozenset({"promptalign"})
"""Its L1 distance compares tokens that are equal but for their last bits, whose sign is then the whole gradient."""


def settled(results):
    """Leave out what plain SSE decides otherwise; AVX2 and AVX512 agree with the reference."""
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        return list(results)
    return [result for result in results if result.method not in SIGN_OF_ROUNDING]
