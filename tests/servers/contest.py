"""Many who want one free lock at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from nsd_zarr.conversion.remote import generations


def count_winners(path: Path) -> int:
    """How many of eight threads that take the free lock of the store at *path* at once have it."""
    start, found = threading.Barrier(8), list[Any]()

    def take() -> None:
        start.wait()
        found.append(generations.take_lock(path, 0.6, 0.05))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(isinstance(each, generations.ObjectLock) and not each.is_lost() for each in found)
