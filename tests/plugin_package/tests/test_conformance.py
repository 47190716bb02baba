# SPDX-License-Identifier: Apache-2.0
"""The method keeps the contract and what its card promises."""

from tta_bench_example.prior import Prior

from tta_bench.checks import parametrize_with_checks


@parametrize_with_checks([Prior(), Prior(momentum=1.0, strength=0.5)])
def test_conformance(method, check):
    check(method)
