"""Sessions that go into one store: alike in trial count, volume and dtype, and with numbers that a store can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from nsd_zarr.errors import SourceError
from nsd_zarr.source.protocol import SourcePart

MAX_COORDINATE = 2**15 - 1
"""The coordinate trial_in_session is int16."""


def check_uniform(sources: Sequence[SourcePart]) -> None:
    """Refuse a session whose trial count, volume or dtype is not what most sessions have. Raises SourceError."""
    _check_same(sources, lambda info: info.shape, "shape")
    _check_same(sources, lambda info: info.dtype, "dtype")
    _check_same(sources, lambda info: info.vertices or (0, 0), "vertices of both hemispheres")


def check_countable(sources: Sequence[SourcePart], max_session: int) -> None:
    """Refuse session numbers above *max_session*, and trial counts that int16 cannot hold. Raises SourceError."""
    for info in sources:
        checks = (("session number", info.session, max_session), ("trial count", info.trials, MAX_COORDINATE))
        for what, number, most in checks:
            if number > most:
                raise SourceError(
                    f"{what} {number}, expected at most {most}",
                    hint="Number the files from 1, or split the session.",
                    path=info.path,
                    session=info.session,
                    expected=most,
                    found=number,
                )


def _check_same(sources: Sequence[SourcePart], measure: Callable[[SourcePart], Any], name: str) -> None:
    counts = Counter(measure(info) for info in sources)
    # What most have; between equals the larger, because files are cut short more often than they grow.
    expected = max(counts, key=lambda value: (counts[value], value))
    for info in sources:
        found = measure(info)
        if found == expected:
            continue
        cut_short = name == "shape" and found[1:] == expected[1:]
        raise SourceError(
            f"{info.values_name}: {name} {found}, expected {expected} as in {counts[expected]} of "
            f"{len(sources)} sessions",
            hint=("The file is probably cut short: fetch" if cut_short else "Fetch")
            + " it again, or leave it out with --sessions.",
            path=info.path,
            session=info.session,
            expected=expected,
            found=found,
        )
