"""Session files opened before their turn: the index of the next is decoded while the present one is compressed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from threading import Lock
from types import TracebackType

from nsd_zarr.places.choose import is_remote
from nsd_zarr.places.read_ahead import ReadAhead
from nsd_zarr.source.protocol import PartReader, SourcePart
from nsd_zarr.source.trial_cache import TrialCache

Opened = tuple[PartReader, ExitStack]
"""A reader, and what closes it."""


class Opener:
    """Opens *parts*, which are read one after the other: the next one ahead, once it is asked to.

    A context: what was opened and not read is closed with it. Thread-safe.
    """

    def __init__(self, parts: Sequence[SourcePart] = ()) -> None:
        self._parts = list(parts)
        self._ahead: dict[int, Future[Opened]] = {}
        self._lock = Lock()
        self._executor = ThreadPoolExecutor(1, "nsd-zarr open")

    def __enter__(self) -> Opener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
        for task in self._ahead.values():
            if not task.cancelled() and task.exception() is None:
                task.result()[1].close()

    @contextmanager
    def open(self, part: SourcePart, cache: TrialCache) -> Iterator[PartReader]:
        """A reader of *part*, until the block ends. Raises what opening it raised, ahead or now."""
        with self._lock:
            task = self._ahead.pop(self._find(part), None)
        reader, stack = _open(part, cache) if task is None else task.result()
        with stack:
            yield reader

    def begin_next(
        self, part: SourcePart, cache: TrialCache, read_ahead: ReadAhead, check_stop: Callable[[], None]
    ) -> None:
        """Begin to open what comes behind *part*, once it has been read ahead: a file whose rows an index names."""
        position = self._find(part) + 1
        if not 0 < position < len(self._parts):
            return
        following = self._parts[position]
        if following.in_order or not following.by_offset or is_remote(following.path):
            return

        def open_next() -> Opened:
            read_ahead.wait(following.path, check_stop)
            return _open(following, cache)

        with self._lock:
            if position not in self._ahead:
                self._ahead[position] = self._executor.submit(open_next)

    def _find(self, part: SourcePart) -> int:
        return self._parts.index(part) if part in self._parts else -1


def _open(part: SourcePart, cache: TrialCache) -> Opened:
    with ExitStack() as stack:
        reader = stack.enter_context(part.open(cache))
        return reader, stack.pop_all()
