"""What this process may use: cores and memory, by the machine, control groups, limits of the shell and of Slurm.

The only place that asks; everybody else calls `count_cores` and `choose_memory_limit`. Everything is read from files
below *root*, so that tests give a tree of their own.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path("/")
SHARE_OF_FREE_MEMORY = 0.5
"""What a run takes when nobody says how much: the rest is for the page cache, which both ends of a conversion live on,
and for whoever else is on the machine."""
NO_LIMIT = 2**60
"""A control group of version 1 without a limit says a number above this."""


def count_cores(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Cores that this process may use, at least 1.

    The least of its affinity, of the quotas of its control group and of every group above it (rounded up), and of
    SLURM_CPUS_PER_TASK.
    """
    has_affinity = root == ROOT and hasattr(os, "sched_getaffinity")
    found = [len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1]
    for group in find_groups(root, "cpu"):
        quota = _read_words(group / "cpu.max") or [
            *_read_words(group / "cpu.cfs_quota_us"),
            *_read_words(group / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and all(word.isdigit() for word in quota) and int(quota[1]):
            found.append(math.ceil(int(quota[0]) / int(quota[1])))
    asked = _read_number(environ.get("SLURM_CPUS_PER_TASK"))
    return max(1, min([*found, asked] if asked else found))


def choose_memory_limit(asked: int | None = None) -> int:
    """Bytes that a run may take: *asked*, or else SHARE_OF_FREE_MEMORY of what is free."""
    return int(read_available_memory() * SHARE_OF_FREE_MEMORY) if asked is None else int(asked)


def read_available_memory(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> int:
    """Bytes that this process may hold: what it holds already, and what it may still take on top.

    The least of what the machine has free (/proc/meminfo), of the limit less the use of the process's control group
    and of every group above it (both versions; the page cache in it counts as free), of the limit on addresses
    (`ulimit -v`), and of SLURM_MEM_PER_NODE or SLURM_MEM_PER_CPU.
    """
    status = _read_pairs(root / "proc/self/status")
    held = 1024 * (status.get("RssAnon:", 0) + status.get("RssShmem:", 0))
    free = [_read_machine(root)]
    free += [left for group in find_groups(root, "memory") if (left := _read_left(group)) is not None]
    if addresses := re.search(r"Max address space +(\d+)", _read_text(root / "proc/self/limits")):
        free.append(int(addresses[1]) - 1024 * status.get("VmSize:", 0))
    if job := _read_slurm_memory(environ):
        free.append(job - held)
    return held + max(0, min(free))


def find_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control group that this process is in, and of every group above it, of both versions.

    A container often sees its own group as the root of the tree, while /proc/self/cgroup names it from the host's
    root: what /proc/self/mountinfo says of the mount is taken off the name.
    """
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        number, controllers, name = (*line.split(":", 2), "", "")[:3]
        if controller not in controllers.split(",") and number != "0":
            continue
        for mount_root, mount in _find_mounts(root, "" if number == "0" else controller):
            below = Path(name).relative_to(mount_root) if Path(name).is_relative_to(mount_root) else Path()
            folders = (mount / below, *(mount / part for part in below.parents))
            yield from (folder for folder in folders if ".." not in below.parts and folder.is_dir())


def _find_mounts(root: Path, controller: str) -> Iterator[tuple[str, Path]]:
    """Root and folder of each mount of the tree of *controller*, of version 2 where it is empty."""
    for line in _read_text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        words, kind = left.split(" "), right.split(" ")
        if len(words) < 5 or len(kind) < 3:
            continue
        if (kind[0] == "cgroup2") if not controller else (kind[0] == "cgroup" and controller in kind[2].split(",")):
            yield words[3], root / words[4].lstrip("/")


def _read_machine(root: Path) -> int:
    """Bytes that the machine has free."""
    free = _read_pairs(root / "proc/meminfo").get("MemAvailable:")
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else 1024 * free


def _read_left(group: Path) -> int | None:
    """Bytes that may be taken on top in a control group; None where it has no limit."""
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    limits = [number for name in names if (number := _read_number(_read_text(group / name))) is not None]
    limits = [limit for limit in limits if limit < NO_LIMIT]
    if not limits:
        return None
    used = [_read_number(_read_text(group / name)) for name in ("memory.current", "memory.usage_in_bytes")]
    cache = _read_pairs(group / "memory.stat")
    # Of version 1, only names with total_ count the groups below.
    prefix = "total_" if "total_inactive_file" in cache else ""
    cached = cache.get(f"{prefix}inactive_file", 0) + cache.get(f"{prefix}active_file", 0)
    return min(limits) - max(0, (used[0] or used[1] or 0) - cached)


def _read_slurm_memory(environ: Mapping[str, str]) -> int | None:
    """Bytes that a Slurm job may hold on this node; None outside of one, or where it has no limit."""
    whole = _read_number(environ.get("SLURM_MEM_PER_NODE"))
    each = _read_number(environ.get("SLURM_MEM_PER_CPU"))
    cores = _read_number(environ.get("SLURM_CPUS_PER_TASK")) or _read_number(environ.get("SLURM_CPUS_ON_NODE")) or 1
    return (whole or (each or 0) * cores) * 2**20 or None


def _read_text(path: Path) -> str:
    """What a file of the kernel says; nothing where it is not there."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _read_words(path: Path) -> list[str]:
    return _read_text(path).split()


def _read_number(text: str | None) -> int | None:
    """A number in decimal digits; None of anything else, such as "max"."""
    return int(text) if text is not None and re.fullmatch(r"\s*[0-9]{1,20}\s*", text) else None


def _read_pairs(path: Path) -> dict[str, int]:
    """Names and numbers, one a line; units are the file's."""
    lines = (line.split() for line in _read_text(path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
