# SPDX-License-Identifier: Apache-2.0
"""The machine behind the numbers: device, threads, versions, and the revision of tta-bench."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import tta_bench
from tta_bench.engine.devices import MIB, device_memory, device_name
from tta_bench.spec.manifest import Machine

PACKAGES = ("torch", "torchvision", "timm", "open_clip_torch", "numpy", "robustbench")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
ASSUMED_MEMORY = 8 * 2**30
"""Bytes of memory where the system tells none."""


@lru_cache
def versions() -> dict[str, str]:
    """Return the versions of tta-bench, Python and the packages that numbers depend on."""
    found = {"tta-bench": tta_bench.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe_machine(device: torch.device) -> Machine:
    """Return what clocks and memory figures depend on."""
    memory = device_memory(device)
    return Machine(
        device=device.type,
        device_name=device_name(device) or processor(),
        instructions=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        cores=os.cpu_count(),
        system=platform.system(),
        architecture=platform.machine(),
        torch_build=str(torch.__version__),
        cuda=torch.version.cuda if device.type == "cuda" else None,
        device_mib=None if memory is None else memory // MIB,
    )


def memory_bytes(device: torch.device) -> int:
    """Return the memory of a device; on the CPU the machine's, or less where a control group limits it."""
    own = device_memory(device)
    if own is not None:
        return own
    limits = [_limit(path) for path in LIMITS]
    names = getattr(os, "sysconf_names", {})
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None
    return min((size for size in (installed, *limits) if size), default=ASSUMED_MEMORY)


def _limit(path: Path) -> int | None:
    """Return the bytes that a control group's file allows, None where it sets no limit."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def numerics() -> str:
    """Return in one line what the last bits of float32 on the CPU depend on: processor, instruction set, torch."""
    return f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


@lru_cache
def processor() -> str:
    """Return the name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@lru_cache
def revision() -> str | None:
    """Return the git revision that tta-bench runs from, with ``+`` if its files differ; None if installed."""
    folder = Path(tta_bench.__file__).parents[1]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)

    try:
        head = git("rev-parse", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        return None
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else None
