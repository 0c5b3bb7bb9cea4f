"""Files read ahead of who needs them: into the page cache, front to back, by a process that does nothing else.

A session file of the dataset is read in small pieces, its index in scattered ones, and the kernel's own read-ahead does
not follow. Another process reads the next file meanwhile, in large blocks. It is a process and not a thread, because
threads that wait for the interpreter's lock between two blocks do not keep a disk busy.

What is in the page cache already is left alone, and what was read ahead is given back after use, so that the cache of
others survives. Nothing depends on it: where it cannot be done, the file is read as before.
"""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

logger = logging.getLogger(__name__)

SAMPLES = 16
"""Places of a file at which the page cache is asked whether it has them. What it has not, it may fetch: few, then, and
other ones each time."""
CACHED_SHARE = 0.5
"""A file of which so much is cached is not read ahead."""
MIN_BYTES = 64 * 2**20
"""Smaller files are not worth a process."""
_READER = """
import os, sys
block = bytearray(8 << 20)
for line in sys.stdin.buffer:
    try:
        descriptor = os.open(line[:-1], os.O_RDONLY)
    except OSError:
        continue
    try:
        while os.readv(descriptor, [block]):
            pass
    except OSError:
        pass
    os.close(descriptor)
"""
"""The process: reads each file whose name comes in. 8 MiB at a time, as dd reads a disk at its full speed."""


class ReadAhead:
    """Reads *paths* ahead, in their order: never more than one file beyond those that are in use.

    A context: the process ends with it. Thread-safe, since each file is begun and ended once.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._asked: set[Path] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process, self._paths = self._process, None, []
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()

    def begin(self, path: Path) -> None:
        """Called when *path* begins to be read: the first file is read ahead of itself, then always the next one."""
        if path in self._paths:
            position = self._paths.index(path)
            for each in self._paths[position : position + 2]:
                self._ask(each)

    def end(self, path: Path) -> None:
        """Called when *path* is not needed any more."""
        if path not in self._asked:
            return
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def _ask(self, path: Path) -> None:
        if path in self._asked or not hasattr(os, "posix_fadvise") or not _is_large(path):
            return
        if find_cached_share(path) >= CACHED_SHARE:
            return
        name = os.fsencode(path)
        if b"\n" in name:
            return
        try:
            self._process = self._process or _start()
            assert self._process.stdin is not None
            self._process.stdin.write(name + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            logger.info("%s is not read ahead: %s", path, error)
            return
        self._asked.add(path)


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size >= MIN_BYTES
    except OSError:
        return False


def _start() -> subprocess.Popen[bytes]:
    # -I -S: without site-packages an interpreter starts in a few hundredths of a second.
    command = [sys.executable, "-I", "-S", "-c", _READER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def find_cached_share(path: Path) -> float:
    """What part of a file the page cache holds, by samples, 0 to 1; 1 where that cannot be asked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 1.0
    try:
        size, found, byte = os.fstat(descriptor).st_size, 0, bytearray(1)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # Nothing around those places is fetched.
        for _ in range(SAMPLES if size else 0):
            try:
                found += os.preadv(descriptor, [byte], random.randrange(size), os.RWF_NOWAIT)
            except BlockingIOError:
                continue
        return found / SAMPLES if size else 1.0
    except (OSError, AttributeError):  # Not of this file system, or not of this system.
        return 1.0
    finally:
        os.close(descriptor)
