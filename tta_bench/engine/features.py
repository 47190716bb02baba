# SPDX-License-Identifier: Apache-2.0
"""Features of the images of a stream: encoded in fixed batches, kept in the cache folder, charged to every cell.

A method in feature space sees features alone. They are encoded here, in batches that depend neither on the method nor
on what was kept, so that a run from the cache predicts what a run without it predicts, to the last bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tta_bench.data.images.preprocess import Preprocess
from tta_bench.data.stream import Part, Stream, batches_of
from tta_bench.engine.devices import device_peak, tells_peaks
from tta_bench.engine.encoding import Encoder, images_encoded_at_once
from tta_bench.engine.feature_files import Block, Charged, FeatureFolder, feature_facts
from tta_bench.engine.meter import cpu_peak
from tta_bench.errors import Caution
from tta_bench.spec import Manifest

FILE_VIEWS = 4096
"""Images or views in one file: what a killed process loses at most."""


class PartFeatures:
    """Features of the images of one shift, in their order.

    Args:
        encoder: Encodes images.
        part: The shift.
        preprocess: The resize and crop of the model.
        at_once: Images in each call of the encoder.
        folder: Where they are kept.
        per_file: Images in each file of it.
        probe: Whether memory is probed on the CPU.
    """

    def __init__(
        self,
        encoder: Encoder,
        part: Part,
        preprocess: Preprocess,
        at_once: int,
        folder: FeatureFolder,
        *,
        probe: bool,
    ) -> None:
        self._encoder, self._part, self._preprocess = encoder, part, preprocess
        self._at_once, self._folder, self._probe = at_once, folder, probe
        self._block: Block | None = None
        self._ahead: tuple[int, Iterator[Tensor]] | None = None
        self._peak_mib: float | None = None
        self._warm, self._keeping = False, True

    def rows(self, start: int, stop: int) -> Charged:
        """Return the images from one place in the order up to another."""
        found, device = [], self._encoder.source.device
        while start < stop:
            if self._block is None or start not in self._block:
                self._block = self._folder.block(start)
            block = self._block
            end = min(stop, block.stop)
            self._fill(block, start, end)
            found.append(block.charged(start, end, device))
            start = end
        return joined(found)

    def peak_mib(self, row: int) -> float:
        """Return the most memory that encoding takes, probed where nobody did when it was encoded."""
        known = self.rows(row, row + 1).peak_mib
        if known is None:
            known = self._peak_mib
        if known is None:
            stop = min(self._at_once, len(self._part.positions))
            pixels, ids = self._load(0, stop), self._ids(0, stop)
            known = self._peak_mib = cpu_peak(lambda: self._encoder(pixels, ids))
        return known

    def _fill(self, block: Block, start: int, stop: int) -> None:
        """Encode what is not there up to a row, batch by batch, and keep the block once it is whole."""
        begin = start // self._at_once * self._at_once
        if begin > block.filled.stop or begin < block.filled.start:  # as where a run resumes
            block.filled = range(begin, begin)
        while block.filled.stop < stop:
            at = block.filled.stop
            end = min(at + self._at_once, block.stop)
            self._encode(block, at, end)
            if block.whole:
                self._keep(block)

    def _encode(self, block: Block, start: int, stop: int) -> None:
        pixels, ids = self._load(start, stop), self._ids(start, stop)
        device = self._encoder.source.device
        if not self._warm:
            self._warm_up(pixels, ids)
        if tells_peaks(device):
            done = []
            peak, _ = device_peak(lambda: done.append(self._encoder(pixels, ids)), device)
            self._peak_mib, made = max(peak, self._peak_mib or 0.0), done[0]
        else:
            made = self._encoder(pixels, ids)
        block.put(range(start, stop), *made)
        block.peak_mib = self._peak_mib

    def _warm_up(self, pixels: Tensor, ids: Sequence[str]) -> None:
        """Encode once before the clocks count, and read the memory that it takes."""
        self._warm = True
        if self._probe and self._encoder.source.device.type == "cpu":
            self._peak_mib = cpu_peak(lambda: self._encoder(pixels, ids))
        else:
            self._encoder(pixels, ids)

    def _ids(self, start: int, stop: int) -> list[str]:
        return [self._part.images.ids[position] for position in self._part.positions[start:stop]]

    def _load(self, start: int, stop: int) -> Tensor:
        """Return images (N, 3, H, W) uint8; those that follow are prefetched."""
        if self._ahead is None or self._ahead[0] != start:
            positions = self._part.positions
            cuts = range(start, len(positions), self._at_once)
            chunks = [positions[cut : cut + self._at_once].tolist() for cut in cuts]
            self._ahead = start, iter(batches_of(self._part.images, chunks, self._preprocess))
        images = self._ahead[1]
        found = next(images)
        self._ahead = stop, images
        return found

    def _keep(self, block: Block) -> None:
        """Keep a block; where that fails the run continues without, and says so once."""
        if not self._keeping:
            return
        try:
            self._folder.keep(block)
        except OSError as error:
            self._keeping = False
            warnings.warn(
                f"features could not be kept in {self._folder.path.parent} ({error}), so later runs encode the images "
                "again; `tta-bench cache list` shows what takes the room",
                Caution,
                stacklevel=2,
            )


class StreamFeatures:
    """Features of a stream of one shift or several.

    Args:
        stream: The stream.
        parts: One for each of its shifts.
    """

    def __init__(self, stream: Stream, parts: Sequence[PartFeatures]) -> None:
        self._stream, self._parts = stream, tuple(parts)

    def rows(self, rows: range) -> Charged:
        """Return the images at some places of the stream."""
        parts, turns = self._stream.within(rows)
        shown = np.unique(parts)
        each = [self._parts[part].rows(*_span(turns[parts == part])) for part in shown]
        if len(each) == 1:
            only: Charged = each[0]
            return only
        order = np.argsort(np.concatenate([np.flatnonzero(parts == part) for part in shown]))
        whole = joined(each)
        return Charged(
            whole.features[torch.from_numpy(order).to(whole.features.device)],
            None if whole.view_ms is None else whole.view_ms[order],
            whole.encode_ms[order],
            whole.cached[order],
            whole.peak_mib,
        )

    def peak_mib(self, row: int) -> float:
        """Return the most memory that encoding the image at a place takes."""
        parts, turns = self._stream.within(range(row, row + 1))
        return self._parts[int(parts[0])].peak_mib(int(turns[0]))


def _span(turns: np.ndarray) -> tuple[int, int]:
    return int(turns[0]), int(turns[-1]) + 1


def joined(parts: Sequence[Charged]) -> Charged:
    """Return several runs of images as one."""
    if len(parts) == 1:
        return parts[0]
    views = [one.view_ms for one in parts if one.view_ms is not None]
    return Charged(
        torch.cat([one.features for one in parts]),
        np.concatenate(views) if views else None,
        np.concatenate([one.encode_ms for one in parts]),
        np.concatenate([one.cached for one in parts]),
        max((one.peak_mib for one in parts if one.peak_mib is not None), default=None),
    )


def stream_features(
    stream: Stream, encoder: Encoder, manifest: Manifest, *, probe: bool, timed_again: set[Path] | None = None
) -> StreamFeatures:
    """Return the features of a cell's stream; what the cache holds of them is not encoded again.

    Args:
        stream: The stream.
        encoder: Of its method's policy of views.
        manifest: Of the cell.
        probe: Whether memory is probed on the CPU.
        timed_again: Where times are to be measured again: the folders that were encoded for this already, to which
            those of the stream are added.
    """
    at_once = images_encoded_at_once(stream.batch_size, encoder.views)
    per_file = max(1, FILE_VIEWS // (encoder.views * at_once)) * at_once
    each = []
    for part in stream.parts:
        order = Stream([part], at_once, stream.preprocess).order_hash()
        facts = feature_facts(manifest, part, order, at_once)
        if encoder.policy is None:
            facts["views"] = ""
        folder = FeatureFolder(facts, per_file)
        if timed_again is not None:
            folder.reads = folder.path in timed_again
            timed_again.add(folder.path)
        each.append(PartFeatures(encoder, part, stream.preprocess, at_once, folder, probe=probe))
    return StreamFeatures(stream, each)
