# SPDX-License-Identifier: Apache-2.0
"""Names to corruptions."""

from __future__ import annotations

from typing import Final

from tta_bench.data.corruptions import colour, elastic, fog, frost, glass, jpeg, motion, noise, snow, spatter
from tta_bench.data.corruptions.base import Corruption
from tta_bench.data.corruptions.blur import gaussian_blur
from tta_bench.data.corruptions.defocus import defocus_blur
from tta_bench.data.corruptions.pixelate import pixelate
from tta_bench.data.corruptions.zoom import zoom_blur

REGISTRY: Final[dict[str, Corruption]] = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.draw_normal),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_uniform),
    "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulses),
    "defocus_blur": Corruption(defocus_blur),
    "glass_blur": Corruption(glass.glass_blur, glass.draw_glass),
    "motion_blur": Corruption(motion.motion_blur, motion.draw_motion),
    "zoom_blur": Corruption(zoom_blur),
    "snow": Corruption(snow.snow, snow.draw_snow),
    "frost": Corruption(frost.frost, frost.draw_frost),
    "fog": Corruption(fog.fog, fog.draw_fog),
    "brightness": Corruption(colour.brightness),
    "contrast": Corruption(colour.contrast),
    "elastic_transform": Corruption(elastic.elastic_transform, elastic.draw_elastic),
    "pixelate": Corruption(pixelate, one_by_one=True),
    "jpeg_compression": Corruption(jpeg.jpeg_compression, one_by_one=True),
    "speckle_noise": Corruption(noise.speckle_noise, noise.draw_normal),
    "gaussian_blur": Corruption(gaussian_blur),
    "spatter": Corruption(spatter.spatter, spatter.draw_spatter),
    "saturate": Corruption(colour.saturate),
}
