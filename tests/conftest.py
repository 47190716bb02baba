# SPDX-License-Identifier: Apache-2.0
"""One thread for each worker: the workers share the cores, and figures must not depend on how many there are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "suite",
    deadline=None,  # the machine is shared by the workers
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("suite")
