"""Random streams: one independent generator for each thing that is drawn, so that none shifts another."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a generator is for. Values enter the seed: never renumber, only append."""

    IMAGE_ORDER = 1
    BEHAVIOUR = 2
    IMAGE_FEATURES = 3
    NCSNR = 4
    SCALE = 5
    WEIGHTS = 6
    RAILS = 7
    DRIFT = 8
    NOISE = 9
    VALID = 10
    OTHER_ORDER = 11
    OTHER_FEATURES = 12


def make_generator(seed: int, stream: Stream, *numbers: int) -> np.random.Generator:
    """A generator for *stream* and *numbers* (subject, session, z slab). The only place of this rule."""
    return np.random.default_rng([seed, stream, *numbers])
