"""Pieces of work on threads, none of them left behind; and what is said where no more threads may be started."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, MutableMapping
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from typing import TypeVar

from nsd_zarr.errors import DoesNotFit

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def map_all(executor: Executor, function: Callable[..., Result], *arguments: Iterable[object]) -> list[Result]:
    """Results of *function* over *arguments*, in order, as executor.map gives them.

    After an error no task is running or waiting: whoever gets the arrays or descriptors that tasks use next must not
    meet a late one. Raises the first error in order.
    """
    tasks: list[Future[Result]] = []
    try:
        # One by one, so that those before one that could not be submitted are known.
        tasks.extend(executor.submit(function, *each) for each in zip(*arguments, strict=True))
        return [task.result() for task in tasks]
    finally:
        wait([task for task in tasks if not task.cancel()])


def is_lack_of_threads(error: BaseException) -> bool:
    """Whether *error* is Python's for a thread that the system did not start."""
    return type(error) is RuntimeError and "start new thread" in str(error)


@contextmanager
def explain_lack_of_threads() -> Iterator[None]:
    """Turn the error of a thread that was not started into DoesNotFit. For a block, or a function as its decorator."""
    try:
        yield
    except RuntimeError as error:
        if not is_lack_of_threads(error):
            raise
        raise DoesNotFit(
            "the system lets this process start no more threads",
            hint="Raise the limit (ulimit -u; of a container, its limit of processes), or give fewer --workers; then "
            "run the same command again.",
        ) from error


class Once:
    """A lock for each key. In a process that was forked off, or unpickles it, none of them is held."""

    def __init__(self) -> None:
        self._locks: dict[tuple[int, Hashable], threading.Lock] = {}

    def __reduce__(self) -> tuple[type[Once], tuple[()]]:
        return Once, ()

    def hold(self, key: Hashable) -> threading.Lock:
        """The lock of *key*, for a with block: within it, look again whether another thread has made it."""
        return self._locks.setdefault((os.getpid(), key), threading.Lock())

    def find(self, kept: MutableMapping[Key, Result], key: Key, make: Callable[[Key], Result]) -> Result:
        """kept[key]; where it is missing, make(key), which stays there.

        One thread at a time makes, whatever the key: what making takes for a moment is taken once.
        """
        found = kept.get(key)
        if found is None:
            with self.hold(Once):
                found = kept.get(key)
                if found is None:
                    found = kept[key] = make(key)
        return found
