# SPDX-License-Identifier: Apache-2.0
"""What a run is asked for: names, ranges and protocol choices, parsed and hashed. Neither torch nor pydantic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tta_bench.errors import BadInputError

RESETS = ("image", "batch", "shift", "never")
PRECISIONS = ("float32", "float64", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")
BAD_IMAGE = ("stop", "skip")
WORST = 5
"""The highest severity."""
CHOSEN = ("published", "held-out", "tuned-on-test")
ELASTIC = ("original", "imagecorruptions")


@dataclass(frozen=True)
class RunSpec:
    """Everything that a user can ask of ``tta-bench run``.

    Attributes:
        methods: Names; every one runs on every dataset.
        datasets: Names, optionally ``name:corruption`` or ``name:corruption:severity``.
        models: Names; empty: each method's default model.
        corruptions: Restricts corrupted datasets; empty or ``("all",)``: all of them.
        severities: 1 to 5.
        subset: ``full``, ``first-N`` or ``seeded-N`` images of each shift; empty: the dataset's default.
        batch_size: Images per step; None: the dataset's default.
        seeds: One set of cells for each.
        reset: Reset rule; None: each method's default.
        device: ``auto`` takes CUDA where there is one.
        precision: Floating type of model and images; ``bfloat16`` is float32 with products under autocast.
        settings: Hyper-parameters as ``key=value`` or ``method.key=value``.
        preset: Named hyper-parameters from the literature; empty: none.
        presets: Presets of single methods, by method, where they differ from `preset`.
        pretrained: False gives random weights.
        chosen: How the hyper-parameters were chosen.
        prompts: Prompt templates by name or text file; empty: those that each method declares.
        bad_image: What an unreadable image does.
        options: Options of the data's readers.
        suite: The named definition that the run follows: its ``name``, ``version`` and which options were
            ``changed``; empty: none.
    """

    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    models: tuple[str, ...] = ()
    corruptions: tuple[str, ...] = ()
    severities: tuple[int, ...] = (5,)
    subset: str = ""
    batch_size: int | None = None
    seeds: tuple[int, ...] = (0,)
    reset: str | None = None
    device: str = "auto"
    precision: str = "float32"
    settings: tuple[str, ...] = ()
    preset: str = ""
    presets: Mapping[str, str] = field(default_factory=dict)
    pretrained: bool = True
    chosen: str = "published"
    prompts: str = ""
    bad_image: str = "stop"
    options: Mapping[str, Any] = field(default_factory=dict)
    suite: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse values that no run could accept."""
        _require(
            bool(self.methods), "--method must name at least one method; `tta-bench list methods` shows all"
        )
        _require(bool(self.datasets), "--dataset must name at least one; `tta-bench list datasets` shows all")
        _require(bool(self.severities), "--severity must name at least one; leave it out for 5")
        for severity in self.severities:
            _require(1 <= severity <= WORST, f"--severity must be 1 to {WORST}, got {severity}")
        size = self.batch_size
        _require(size is None or size > 0, f"--batch-size must be at least 1, got {size}")
        _one_of("--reset", self.reset, (None, *RESETS))
        _one_of("--precision", self.precision, PRECISIONS)
        _one_of("--device", self.device, DEVICES)
        _one_of("--on-bad-image", self.bad_image, BAD_IMAGE)
        _one_of("--chosen", self.chosen, CHOSEN)
        _one_of("--elastic", self.options.get("elastic"), (None, *ELASTIC))
        workers = self.options.get("workers")
        _require(workers is None or workers >= 0, f"--workers must be 0 or more, got {workers}")
        _require(bool(self.seeds), "--seed must name at least one; leave it out for 0")
        for seed in self.seeds:
            _require(0 <= seed < 2**63, f"--seed must be 0 or more and below 2**63, got {seed}")
        if self.subset:
            subset_size(self.subset)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise BadInputError(sentence)


def _one_of(option: str, value: object, allowed: Sequence[object]) -> None:
    names = ", ".join(str(item) for item in allowed if item is not None)
    _require(value in allowed, f"{option} must be one of {names}, got {value!r}")


def subset_size(subset: str) -> int | None:
    """Return how many images a subset name stands for; None for ``full``.

    Raises:
        BadInputError: If it is none of ``full``, ``first-N``, ``seeded-N`` and ``robustbench-5k``.
    """
    if subset == "full":
        return None
    if subset == "robustbench-5k":
        return 5000
    kind, _, count = subset.partition("-")
    if kind not in ("first", "seeded") or not count.isdecimal():
        raise BadInputError(f"--subset must be full, first-N, seeded-N or robustbench-5k, got {subset!r}")
    if int(count) == 0:
        raise BadInputError("--limit must be at least 1 image per shift, got 0; leave it out for the default")
    return int(count)


def limit_to_subset(limit: int) -> str:
    """Return the subset that ``--limit N`` stands for."""
    _require(
        limit > 0, f"--limit must be at least 1 image per shift, got {limit}; leave it out for the default"
    )
    return f"first-{limit}"


def parse_severities(texts: Sequence[str]) -> tuple[int, ...]:
    """Return the severities that texts such as ``5``, ``1-5`` or ``1,3`` stand for, in ascending order."""
    found: set[int] = set()
    for text in texts:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            numbers = (first, last) if dash else (first, first)
            _require(
                all(number.isdecimal() for number in numbers) and int(numbers[0]) <= int(numbers[-1]),
                f"--severity must be like 5, 1-5 or 1,3, got {text!r}",
            )
            _require(int(numbers[-1]) <= WORST, f"--severity must be 1 to {WORST}, got {numbers[-1]}")
            found.update(range(int(numbers[0]), int(numbers[-1]) + 1))
    _require(bool(found), f"--severity must be like 5, 1-5 or 1,3, got {', '.join(texts)!r}")
    return tuple(sorted(found))


def settings_for(method: str, settings: Sequence[str]) -> dict[str, str]:
    """Return the ``--set`` values that are meant for one method: ``key=value`` and ``method.key=value``."""
    chosen: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        _require(bool(equals and key), f"--set must be like lr=1e-4 or tent.lr=1e-4, got {setting!r}")
        owner, dot, name = key.rpartition(".")
        if not dot or owner == method:
            chosen[name] = value
    return chosen


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces, the same for equal values on every platform."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def digest(value: Any, length: int = 64) -> str:
    """Return the SHA-256 of a JSON-like value, in hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def counter_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on every part: the same parts, the same seed, in any order of calls."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
