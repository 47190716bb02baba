# SPDX-License-Identifier: Apache-2.0
"""Size of the state that a method carries from step to step, on its default model."""

from __future__ import annotations

from tta_bench.checks.guard import guarded
from tta_bench.data.dataset import find_dataset
from tta_bench.engine.cell import AFRESH
from tta_bench.engine.devices import MIB
from tta_bench.engine.split import source_data
from tta_bench.engine.states import state_bytes
from tta_bench.method import Method, Task
from tta_bench.models.loading import load_model

BATCH, STREAM = 64, 200
"""As in a run on the embedded default."""


def carried_state(method: Method) -> str:
    """Return in one sentence how large the state is that a method begins with on its card's model.

    Args:
        method: The method. One that needs source data is not begun, for that may take minutes.
    """
    if method.card.reset in AFRESH:
        return "none: every step starts afresh"
    if source_data(method):
        return "begins from source data; the manifest of a run says how large it is (state_mib)"
    dataset = find_dataset("pocket")[0]
    source = load_model(method.card.model, dataset.class_names, templates=dataset.templates)
    task = Task(source.num_classes, source.class_names, BATCH, STREAM)
    with guarded():
        size = state_bytes(method.init(source, task)) / MIB
    weights = sum(one.nbytes for one in source.params.values()) / MIB
    grows = "" if method.card.fixed_shapes else ", and grows"
    return f"{size:.3g} MiB at the start on {method.card.model} ({weights:.3g} MiB of weights){grows}"
