# SPDX-License-Identifier: Apache-2.0
"""Ranges of hyper-parameters: the last value that is taken, and the next one that is refused."""

import pytest

from tta_bench import registry
from tta_bench.errors import BadInputError

SHARES = {
    "adacontrast": ["keep"], "cmf": ["alpha", "gamma"], "cotta": ["keep", "restore"], "histpt": ["keep"],
    "memo": ["alpha"], "neo": ["alpha"], "norm": ["alpha", "momentum"], "note": ["momentum_stats"], "rmt": ["keep"],
    "roid": ["keep", "keep_weights"], "rotta": ["alpha", "nu"], "unmix-tns": ["noise"],
}  # fmt: skip
COUNTS = {
    "actmad": ["steps", "samples"], "adacontrast": ["queue", "neighbours"], "bat-clip": ["steps"],
    "clipartt": ["classes"], "cliptta": ["steps", "sample"], "cotta": ["views"], "deyo": ["patches"],
    "dynaprompt": ["prompts_kept"], "eata": ["samples"], "foa": ["samples"], "histpt": ["hard"],
    "lame": ["k", "steps"], "memo": ["views"], "note": ["capacity", "every"], "petta": ["capacity", "samples"],
    "pl": ["steps"], "r-tpt": ["neighbours"], "rdumb": ["every"], "rlcf": ["samples"], "rmt": ["width", "samples"],
    "rotta": ["capacity", "every"], "santa": ["width", "samples"], "shot-im": ["steps"], "t3a": ["keep"],
    "tent": ["steps", "window"], "tpt": ["views", "steps"], "ttaug": ["views"], "ttl": ["rank", "blocks"],
    "unmix-tns": ["components", "full_batch"], "unmix-tns-tent": ["steps"], "watt": ["repetitions"],
}  # fmt: skip
COUNTS_FROM_0 = {
    "adacontrast": ["patience"],
    "cliptta": ["shots"],
    "foa": ["prompts"],
    "rmt": ["warmup_samples"],
}
FROM_0 = {
    "actmad": ["scale"], "cmf": ["noise"], "cotta": ["confidence"], "deyo": ["margin"],
    "eata": ["alpha", "margin", "redundancy"], "foa": ["weight"], "lame": ["tolerance"], "note": ["k"], "pl": ["beta"],
    "promptalign": ["align_weight"], "rmt": ["replay", "contrast", "agreement"],
    "rotta": ["time_weight", "uncertainty_weight"], "sar": ["margin", "rho", "recovery"],
    "shot-im": ["theta", "beta"], "zerosiam": ["projector_lr"],
}  # fmt: skip
ABOVE_0 = {
    "adacontrast": ["temperature"], "foa": ["sigma"], "r-tpt": ["temperature"], "rlcf": ["amplify"],
    "rmt": ["temperature"], "roid": ["temperature"], "unmix-tns": ["temperature"],
}  # fmt: skip
PARTS = {"promptalign": ["align_selection"], "rpl": ["q"], "tpt": ["selection"]}
KINDS = (
    (SHARES, 0.0, -0.001),
    (SHARES, 1.0, 1.001),
    (COUNTS, 1, 0),
    (COUNTS_FROM_0, 0, -1),
    (FROM_0, 0.0, -0.001),
    (ABOVE_0, 1e-9, 0.0),
    (PARTS, 1e-9, 0.0),
    (PARTS, 1.0, 1.001),
    ({"foa": ["population"], "mta": ["views"]}, 2, 1),
    ({"onzeta": ["views"]}, 1, 2),
)
ENDS = [
    (method, name, taken, refused)
    for named, taken, refused in KINDS
    for method, names in named.items()
    for name in names
]


@pytest.mark.parametrize(("method", "name", "taken", "refused"), ENDS)
def test_a_range_ends_where_it_says(method, name, taken, refused):
    made = registry.load("methods", method)
    assert getattr(made(**{name: taken}), name) == taken
    with pytest.raises(BadInputError, match=rf"got .*{refused}"):
        made(**{name: refused})
