# SPDX-License-Identifier: Apache-2.0
"""Which reward model a method gets that needs one."""

from __future__ import annotations

from collections.abc import Mapping

from tta_bench.errors import BadInputError
from tta_bench.method import Method

REWARD = "open_clip/ViT-L-14-quickgelu:openai"
POCKET_REWARD = "pocket-clip"


def check_wanted(asked: str, methods: Mapping[str, Method]) -> None:
    """Refuse a reward model that no method of a run would use.

    Args:
        asked: Its name; empty: none was asked for.
        methods: The methods by name.

    Raises:
        BadInputError: If none needs one.
    """
    if asked and not any("reward" in method.card.needs for method in methods.values()):
        raise BadInputError(
            "reward must go with a method that has a reward model, such as rlcf, got "
            f"{', '.join(methods)}; leave it out",
            options=("reward",),
        )


def reward_model(asked: str, name: str, method: Method, model: str) -> str:
    """Return the reward model of a cell; empty for a method that has none.

    Raises:
        BadInputError: If none was asked for and the source model is none of ours, of which we know a fitting one.
    """
    if "reward" not in method.card.needs:
        return ""
    if not asked and not model.startswith("pocket-"):
        raise BadInputError(
            f"{name} needs a reward model beside {model}, another CLIP-like model that judges its predictions; name "
            f'one with reward="{REWARD}", which is the published choice',
            options=("reward",),
        )
    return asked or POCKET_REWARD
