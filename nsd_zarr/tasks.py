"""Pieces of work on threads, none of them left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, wait
from typing import TypeVar

Result = TypeVar("Result")


def map_all(executor: Executor, function: Callable[..., Result], *arguments: Iterable[object]) -> list[Result]:
    """Results of *function* over *arguments*, in order, as executor.map gives them.

    After an error no task is running or waiting: whoever gets the arrays or descriptors that tasks use next must not
    meet a late one. Raises the first error in order.
    """
    tasks = [executor.submit(function, *each) for each in zip(*arguments, strict=True)]
    try:
        return [task.result() for task in tasks]
    finally:
        wait([task for task in tasks if not task.cancel()])
