"""Locks that each process holds for a moment: whoever comes waits, instead of being refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TypeVar

from nsd_zarr.errors import StoreError

Held = TypeVar("Held")
PATIENCE_SECONDS = 60.0
"""How long others are waited for: each takes a fraction of a second, unless it hangs."""
_TRY_AGAIN_SECONDS = 0.05


def take_turn(
    stack: ExitStack, hold: Callable[[], AbstractContextManager[Held]], is_brief: Callable[[StoreError], bool]
) -> Held:
    """What *hold* gives, until *stack* ends; tried again where *is_brief* says of its error that it will pass.

    Raises StoreError where it does not, or where another process has the lock for long.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return stack.enter_context(hold())
        except StoreError as error:
            if not is_brief(error) or time.monotonic() > deadline:
                raise
        time.sleep(_TRY_AGAIN_SECONDS)
