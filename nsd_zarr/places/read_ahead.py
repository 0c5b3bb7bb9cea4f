"""Files read ahead of who needs them: into the page cache, front to back, by a process that does nothing else.

A session file of the dataset is read in small pieces, its index in scattered ones, and the kernel's own read-ahead does
not follow. Another process reads the next file meanwhile, in large blocks. It is a process and not a thread, because
threads that wait for the interpreter's lock between two blocks do not keep a disk busy.

Whoever needs a file waits until it has been read: reading it in pieces at the same time slows both down (the first of
six cold sessions took 3.0 s instead of 1.2 s). What is in the page cache already is left alone, and what was read ahead
is given back after use, so that the cache of others survives. Nothing depends on it: where it cannot be done, or the
cache has no room for a file, it is read as before.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll
from threading import Lock
from types import TracebackType

from nsd_zarr.places.page_cache import give_back, is_file_cached, open_for_advice
from nsd_zarr.resources import read_available_memory

logger = logging.getLogger(__name__)

FILES_IN_CACHE = 3
"""A file that is in use, the next one, and what is written meanwhile: less memory would lose what was read ahead."""
MIN_BYTES = 64 * 2**20
"""Smaller files are not worth a process."""
_READER = """
import os, sys
block = bytearray(8 << 20)
for line in sys.stdin.buffer:
    try:
        with open(line[:-1], "rb", buffering=0) as file:
            while file.readinto(block):
                pass
    except OSError:
        pass
    os.write(1, b".")
"""
"""The process: reads each file whose name comes in, and says so. 8 MiB at a time, as dd reads a disk at full speed."""


class ReadAhead:
    """Reads *paths* ahead, in their order: never more than one file beyond those that are in use.

    A context: the process ends with it. Thread-safe.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._asked: list[Path] = []
        self._count_read = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = Lock()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process, self._paths = self._process, None, []
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with suppress(OSError):
                    pipe.close()

    def begin(self, path: Path) -> None:
        """Called when *path* begins to be read: the first file is read ahead of itself, then always the next one."""
        with self._lock:  # One process, whoever begins first: it answers in the order in which it was asked.
            position = self._paths.index(path) if path in self._paths else len(self._paths)
            for each in self._paths[position : position + 2]:
                self._ask(each)

    def is_waited_for(self, path: Path) -> bool:
        """Whether *path* is being read ahead, or will be."""
        return self._process is not None and path in self._asked[self._count_read :]

    def wait(self, path: Path, check_stop: Callable[[], None]) -> None:
        """Return once *path* has been read, or will not be. *check_stop* is called meanwhile, and may raise."""
        while self.is_waited_for(path):
            check_stop()
            with self._lock:
                if self.is_waited_for(path):  # Another thread may have heard of it.
                    self._listen()

    def _listen(self) -> None:
        """Hear from the process, or wait a tenth of a second; what it reads no more, nobody waits for."""
        assert self._process is not None
        assert self._process.stdout is not None
        waiting = poll()  # not select, which takes no descriptor from 1,024 on
        waiting.register(self._process.stdout, POLLIN)
        if waiting.poll(100):
            self._count_read += len(os.read(self._process.stdout.fileno(), 1024)) or len(self._asked)

    def end(self, path: Path) -> None:
        """Called when *path* is not needed any more."""
        if path not in self._asked:
            return
        with suppress(OSError), open_for_advice(path) as descriptor:
            give_back(descriptor)

    def _ask(self, path: Path) -> None:
        if path in self._asked or not hasattr(os, "posix_fadvise") or not _is_worth_it(path):
            return
        if is_file_cached(path):
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
        self._asked.append(path)


def _is_worth_it(path: Path) -> bool:
    """Whether a file is large, and the page cache has room for it beside the one that is in use."""
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return size >= MIN_BYTES and FILES_IN_CACHE * size <= read_available_memory()


def _start() -> subprocess.Popen[bytes]:
    # -I -S: without site-packages an interpreter starts in a few hundredths of a second.
    command = [sys.executable, "-I", "-S", "-c", _READER]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
