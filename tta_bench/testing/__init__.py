# SPDX-License-Identifier: Apache-2.0
"""Fakes for tests of methods: tiny source models and inputs from a seed, with nothing to download, and a device.

They are part of the installed package so that the author of a plug-in can write tests with them.
"""

from tta_bench.testing.device import device_double
from tta_bench.testing.inputs import TinySplit, tiny_images, tiny_inputs, tiny_task
from tta_bench.testing.sources import sources_for, tiny_clip, tiny_source

__all__ = [
    "TinySplit",
    "device_double",
    "sources_for",
    "tiny_clip",
    "tiny_images",
    "tiny_inputs",
    "tiny_source",
    "tiny_task",
]
