# SPDX-License-Identifier: Apache-2.0
"""The scores that a cell is compared with: of the source model alone, and zero-shot with the method's own prompts.

They are computed once per model, shift and order, outside every clock, and shared by all methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from tta_bench.data.stream import Stream
from tta_bench.engine.guests import Kept
from tta_bench.engine.identity import Resolved, scores_key
from tta_bench.engine.ports import RecordStore, SourceScores
from tta_bench.engine.prompted import own_prompts
from tta_bench.engine.rows import predicted
from tta_bench.spec import Protocol

SCORES_BATCH = 64


@dataclass(frozen=True)
class Baselines:
    """The scores that one cell is compared with.

    Attributes:
        one: The cell.
        protocol: Its protocol card.
        store: Keeps the scores.
        kept: Remembers what the store raises.
    """

    one: Resolved
    protocol: Protocol
    store: RecordStore
    kept: Kept

    def source(self) -> SourceScores:
        """Return what the source model alone says of the stream."""
        source = self.one.source
        return self._scores(source.text.sentences if source.text else (), source.logits)

    def zero_shot(self) -> SourceScores | None:
        """Return zero-shot scores with the class prompts of the method; None where they are the source model's."""
        own = own_prompts(self.one.source, self.one.info.sentences)
        return None if own is None else self._scores(own.sentences, own.logits)

    def _scores(self, sentences: Sequence[str], logits: Callable[[Tensor], Tensor]) -> SourceScores:
        stream, each = self.one.stream, []
        for part in stream.parts:
            alone = Stream([part], SCORES_BATCH, stream.preprocess)
            key = scores_key(self.one, self.protocol, part, alone.order_hash(), sentences)
            scores = self.kept.call(self.store.scores, key)
            if scores is None or len(scores.prediction) != len(alone):
                scores = predicted(self.one.source, alone, logits)
                self.kept.call(self.store.put_scores, key, scores)
            each.append(scores)
        return SourceScores(*(stream.in_order(column) for column in zip(*each, strict=True)))
