# SPDX-License-Identifier: Apache-2.0
"""Three small trained models of PocketScenes: pocket-bn, pocket-gn and pocket-clip."""

from tta_bench.data.pocket.spec import TEMPLATES
from tta_bench.models.pocket.zoo import POCKET_MODELS, build, build_clip, weights_path, weights_sha256

__all__ = ["POCKET_MODELS", "TEMPLATES", "build", "build_clip", "weights_path", "weights_sha256"]
