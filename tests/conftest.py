# SPDX-License-Identifier: Apache-2.0
"""One thread for each worker: the workers share the cores, and figures must not depend on how many there are."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
