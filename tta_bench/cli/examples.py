# SPDX-License-Identifier: Apache-2.0
"""Examples below the help of each command; a test parses every one of them."""

from __future__ import annotations

EXIT_CODES = (
    "Exit codes: 0 all is well; 1 the command ran and something failed, differs or is missing; 2 bad input, "
    "said in one sentence; 128 + N ended by signal N (130: Ctrl-C)."
)

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "tta-bench run --method source,tent,eata --dataset pocket-c",
        'tta-bench run --method "@online,-@clip" --dataset "pocket-c:*:5" --limit 200 --seed 0-4',
        "tta-bench run --plugin mine.py --method mine --dataset pocket-c --preset mine=small --print-config",
    ),
    "list": (
        "tta-bench list methods --category online --needs text",
        "tta-bench list runs",
        'tta-bench list cells runs --where status=failed --where "shift=*:fog:*"',
    ),
    "describe": (
        "tta-bench describe tent",
        "tta-bench describe pocket-c",
        "tta-bench describe --plugin mine.py",
    ),
    "leaderboard": (
        "tta-bench leaderboard runs",
        "tta-bench leaderboard runs_a runs_b --output table.md --sort gain",
        "tta-bench leaderboard runs --where method=tent,eata --by shift --require-complete",
    ),
    "compare": (
        "tta-bench compare runs --methods tent,mine",
        "tta-bench compare runs_a runs_b --baseline source",
        "tta-bench compare runs_monday runs_tuesday",
    ),
    "sweep": (
        "tta-bench sweep --method tda --set alpha=1,2,3 --set beta=3,5 --dataset pocket-c:fog",
        "tta-bench sweep --method tent --set lr=1e-4,3e-4,1e-3 --sample 2 --dataset pocket-sketch",
    ),
    "recommend": (
        "tta-bench recommend runs",
        "tta-bench recommend runs_a runs_b",
    ),
    "cache list": (
        "tta-bench cache list",
        "TTA_BENCH_CACHE=/scratch/cache tta-bench cache list",
    ),
    "cache check": (
        "tta-bench cache check",
        "TTA_BENCH_CACHE=/scratch/cache tta-bench cache check",
    ),
    "cache prune": (
        "tta-bench cache prune --to 2GiB",
        "tta-bench cache prune --all",
    ),
    "validate": (
        "tta-bench validate mine.py",
        "tta-bench validate tent --set steps=2",
    ),
    "parity": (
        "tta-bench parity tests/parity",
        "tta-bench parity tests/parity --method tent",
    ),
    "study": (
        "tta-bench study apm",
        "tta-bench study apm --dataset pocket-c:fog --lr 1e-4 --lr 1e-3 --updates 5 --updates 20",
    ),
    "doctor": (
        "tta-bench doctor",
        "tta-bench doctor --reproduce",
    ),
    "islands": (
        "tta-bench islands photo.jpg --model timm/vit_tiny_patch16_224 --layers 0,5,11",
        "tta-bench islands --dataset pocket --limit 8 --model pocket-vit-clip",
    ),
    "data list": (
        "tta-bench data list",
        "TTA_BENCH_DATA=/datasets tta-bench data list",
    ),
    "data check": (
        "tta-bench data check cifar10-c",
        "tta-bench data check imagenet-c --severity 5",
    ),
    "data prepare": (
        "tta-bench data prepare cifar10-c --dry-run",
        "tta-bench data prepare imagenet-c --part noise --root /datasets",
    ),
    "data corrupt": (
        "tta-bench data corrupt photos photos-c --corruption fog --severity 1-5",
        "tta-bench data corrupt photos photos-c --corruption all --severity 3,5 --workers 4",
    ),
}
"""By command."""


def epilog(command: str) -> str | None:
    """Return what stands below the help of a command; each example keeps its line."""
    examples = EXAMPLES.get(command)
    if not examples:
        return None
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{lines}"
