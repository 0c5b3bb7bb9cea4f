"""The operating system's lock on an open file: held by one process, or shared; ends with its process."""

from __future__ import annotations

import fcntl


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file, without waiting; whether that succeeded. Closing the descriptor lets go of the lock.

    *shared*: several processes may hold it so at once. Raises OSError (other than BlockingIOError) on a file system
    that has no locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
