# SPDX-License-Identifier: Apache-2.0
"""Corruptions under another instruction set: at most 1 in 255, in at most 40 values per million, as promised."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tta_bench.data.corruptions import corrupt
from tta_bench.pocket.datasets import CORRUPTIONS
from tta_bench.pocket.scenes.painter import render

IMAGES = 98
"""301,056 values, of which at most 12 may differ."""
PER_MILLION = 40
HERE = torch.backends.cpu.get_cpu_capability().lower()
SCRIPT = """
import sys
import numpy as np
from tta_bench.data.corruptions import corrupt
from tta_bench.pocket.datasets import CORRUPTIONS
from tta_bench.pocket.scenes.painter import render
images = render("test", range(int(sys.argv[2])))[0]
np.savez(sys.argv[1], images=images.numpy(), **{name: corrupt(images, name, 5, 0).numpy() for name in CORRUPTIONS})
"""


@pytest.mark.slow
@pytest.mark.portable
@pytest.mark.parametrize("other", [name for name in ("default", "avx2", "avx512") if name != HERE])
def test_another_instruction_set_moves_few_values_by_one(other, tmp_path):
    path = tmp_path / "other.npz"
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": other}
    subprocess.run([sys.executable, "-c", SCRIPT, str(path), str(IMAGES)], env=environment, check=True)
    images = render("test", range(IMAGES))[0]
    with np.load(path) as made:
        assert np.array_equal(made["images"], images.numpy())
        for name in CORRUPTIONS:
            away = np.abs(made[name].astype(int) - corrupt(images, name, 5, 0).numpy().astype(int))
            assert away.max() <= 1, name
            assert (away > 0).sum() <= PER_MILLION * away.size / 1e6, name
