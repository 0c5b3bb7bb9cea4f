"""How many examples a property is tried on."""

from __future__ import annotations

from hypothesis import settings

ALL_EXAMPLES = 100
"""Examples of a test that names no number, under `--hypothesis-profile=full`: Hypothesis' own default."""


def scale_examples(full: int, *, at_least: int = 10) -> int:
    """Examples of a test that tries *full* of them with `--hypothesis-profile=full`: fewer by the profile's share."""
    return min(full, max(at_least, full * settings.default.max_examples // ALL_EXAMPLES))
