# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of pocket-clip: CLIP's byte-pair encoding, reduced to the merges that its words need.

Words outside the vocabulary fall back to single bytes, so every text has a token sequence.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from tta_bench.pocket.nets import WEIGHTS
from tta_bench.spec.whole import write_whole

CONTEXT_LENGTH = 20
MERGES = WEIGHTS / "pocket-clip.bpe.gz"


def reduced_merges(words: Iterable[str]) -> list[str]:
    """Return the merges of CLIP's encoding that given words need, in their original order.

    A word is then cut into the same pieces as by the whole encoding: at each step the merge that is applied
    is the earliest that fits, and it is kept.

    Args:
        words: Lower-case words.

    Returns:
        Merges as ``"left right"``.
    """
    whole = SimpleTokenizer()
    needed: set[tuple[str, str]] = set()
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            first = min(pairs, key=lambda pair: whole.bpe_ranks.get(pair, len(whole.bpe_ranks)))
            if first not in whole.bpe_ranks:
                break
            needed.add(first)
            pieces = _merged(pieces, first)
    return [" ".join(pair) for pair in sorted(needed, key=whole.bpe_ranks.__getitem__)]


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the pieces with every occurrence of a pair joined, from left to right."""
    joined: list[str] = []
    for piece in pieces:
        if joined and (joined[-1], piece) == pair:
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined


def write_merges(path: Path, words: Iterable[str]) -> None:
    """Write the merges that given words need, in the form that open_clip reads: a heading, then the merges."""
    text = "\n".join(["#version: 0.2 (reduced)", *reduced_merges(words)])
    write_whole(path, gzip.compress(text.encode(), mtime=0))


def load_tokenizer(merges: Path = MERGES) -> SimpleTokenizer:
    """Return the tokenizer: ``tokenizer(list[str])`` gives int64 token ids (P, 20), padded with 0.

    Args:
        merges: The file that :func:`write_merges` wrote.
    """
    return SimpleTokenizer(bpe_path=str(merges), context_length=CONTEXT_LENGTH)
