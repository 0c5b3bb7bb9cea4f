"""Reading again what a disk or a network failed to read for a moment."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

PAUSES = (0.1, 0.5, 2.0)
"""Seconds before each new try of one read: three, so that a shared file system that fails over for a moment is waited
for, and a disk that is broken is reported within three seconds."""
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ENOTCONN, errno.EAGAIN}
_IN_TEXT = re.compile(r"errno = (\d+)")
"""Where a message of HDF5 holds the error number of the system call that failed."""

logger = logging.getLogger(__name__)


def may_pass(error: OSError) -> bool:
    """Whether a read that failed so may succeed when it is tried again."""
    return _find_number(error) in _PASSING


def read_again(read: Callable[[], Result], where: str) -> Result:
    """The result of *read*, tried up to four times where the error may pass: input/output, stale handle, time-out.

    Each new try is logged with *where* and its count. Raises the last error; any other at once.
    """
    for count, pause in enumerate(PAUSES, start=1):
        try:
            return read()
        except OSError as error:
            if not may_pass(error):
                raise
            logger.warning("%s: %s; try %d of %d follows", where, error, count + 1, len(PAUSES) + 1)
            time.sleep(pause)
    return read()


def _find_number(error: OSError) -> int | None:
    match = _IN_TEXT.search(str(error))
    return int(match[1]) if match else error.errno
