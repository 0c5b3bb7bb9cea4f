"""Geometry and arithmetic: dimension names, scale, shards, sessions and trials. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NewType, TypeVar

from nsd_zarr.nsd import RUNS_PER_SESSION, TRIALS_OF_EVEN_RUN, TRIALS_OF_ODD_RUN, TRIALS_PER_SESSION

SessionNumber = NewType("SessionNumber", int)
"""A scan session, counted from 1 as in its file name."""
TrialInSession = NewType("TrialInSession", int)
"""A trial, counted from 0 in its session."""
TrialInStore = NewType("TrialInStore", int)
"""A trial, counted from 0 along the store."""

MAX_TRIALS = 2**24
"""Trials that a session or a store may have. The dataset has 30,000 a subject; a file that claims more
would be counted through for hours, and held in memory trial by trial."""
COUNTS_PER_PERCENT = 300
"""Stored counts for one percent signal change. Source: data manual, "Functional data (NSD)".
The only place of this number. Divide by float32 300; never multiply by the reciprocal, which differs in
the last bit for 19,116 of the 65,536 int16 codes."""
DECODED_SHARD_BYTES = 128 * 2**20
"""A shard holds at most this many decoded bytes by default. Gives 75 trials a shard at
(750, 83, 104, 81) int16 and 25 at (750, 150, 150, 100): 400 and 1,200 files for 40 sessions, few enough
for any file system, and a task of about 0.15 s, small enough to balance over threads."""

DTYPE_BYTES = {
    f"{kind}{8 * size}": size
    for kind, sizes in {"int": (1, 2, 4, 8), "uint": (1, 2, 4, 8), "float": (2, 4, 8)}.items()
    for size in sizes
}
"""Bytes of a value of each dtype that a store can hold: Zarr v3's core integers and floats."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a store holds, in words. A store of images lies as one of trials: image for trial, block for session.

    The engine knows both by the geometry of a store; only these words differ.
    """

    array: str
    """The array in shards."""
    item: str
    """What one chunk of it holds; also its first dimension."""
    part: str
    """What one unit of work writes."""

    @property
    def digests(self) -> str:
        """Name of the array of each item's digest."""
        return f"{self.item}_digest"


TRIALS = Kind("betas", "trial", "session")
"""A store of betas."""
IMAGES = Kind("images", "image", "block")
"""A store of stimulus images."""


def make_dims(ndim: int) -> tuple[str, ...]:
    """Dimension names of betas of *ndim* dimensions: volumes (trial, z, y, x), surfaces (trial, vertex)."""
    names = {4: ("trial", "z", "y", "x"), 2: ("trial", "vertex")}
    if ndim not in names:
        raise ValueError(f"betas have 4 dimensions (volumes) or 2 (surfaces), not {ndim}")
    return names[ndim]


def divisors(number: int) -> Iterator[int]:
    """All divisors of *number* (>= 1), smallest first."""
    return (candidate for candidate in range(1, number + 1) if number % candidate == 0)


def choose_trials_per_shard(trials_per_session: int, trial_bytes: int) -> int:
    """The largest divisor of *trials_per_session* that keeps a decoded shard within DECODED_SHARD_BYTES.

    At least one trial, however large. A pure function of shape and dtype, so that the same sources give
    the same store everywhere. The only place of this rule.
    """
    most = max(1, DECODED_SHARD_BYTES // max(1, trial_bytes))
    return max(count for count in divisors(trials_per_session) if count <= most)


def runs_of(trials_per_session: int) -> list[int]:
    """Trials in each of a session's twelve runs: 63, 62, 63, ... for 750, nearly equal lengths for other counts.

    The only place of this rule.
    """
    if trials_per_session == TRIALS_PER_SESSION:
        return [TRIALS_OF_ODD_RUN, TRIALS_OF_EVEN_RUN] * (RUNS_PER_SESSION // 2)
    short, longer = divmod(trials_per_session, RUNS_PER_SESSION)
    return [short + (run < longer) for run in range(RUNS_PER_SESSION)]


def format_bytes(count: float) -> str:
    """Bytes for people: "1.05 GB", decimal units as disks and the dataset's documents count."""
    for unit in ("bytes", "kB", "MB", "GB"):
        # 999.5 would be shown as 1e+03: the next unit has it as 1.
        if abs(count) < 999.5:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def format_seconds(seconds: float) -> str:
    """A time for people, of about two digits: "47 s", "1.7 min", "12 h"."""
    if seconds < 1:
        return "less than 1 s"
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        count = seconds / size
        if count < 99.5 or unit == "h":
            break
    return f"{count:.0f} {unit}" if unit == "s" or count >= 9.95 else f"{count:.2g} {unit}"


def format_count(count: int, noun: str) -> str:
    """A number of things for people: "1 session", "3 sessions"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a conversion that several processes share, such as the tasks of an array job: 3/8."""

    number: int
    """Which, from 1."""
    count: int
    """How many there are."""

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def take(self, items: Sequence[_Item]) -> Sequence[_Item]:
        """Those of *items* that belong to it: each belongs to one part. The only place of this rule.

        In turns, so that parts have the same number but for one, and begin with the first sessions.
        """
        return items[self.number - 1 :: self.count]


def parse_part(text: str) -> Part:
    """A part from "3/8". Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("expected i/n such as 3/8, i from 1 to n")
    return Part(int(match[1]), int(match[2]))


@dataclass(frozen=True, slots=True)
class Geometry:
    """How sessions, trials and shards of one store lie."""

    sessions: tuple[SessionNumber, ...]
    """Session numbers, ascending; their trials follow each other along the store."""
    trials_per_session: int
    """Trials in every session."""
    trials_per_shard: int
    """Trials in every shard; divides trials_per_session, so a shard never crosses a session border."""
    volume_shape: tuple[int, ...]
    """Shape of one trial: (z, y, x), or (vertex,) for surfaces."""
    dtype: str
    """Stored dtype as NumPy names it, without byte order ("int16")."""
    kind: Kind = TRIALS
    """What the store holds."""
    count: int | None = None
    """Trials in the whole store where the last session has fewer than the others; None: all have as many."""
    vertices: tuple[int, int] | None = None
    """Of a surface, vertices of the left and of the right hemisphere, 0 of one that is not there; None: not known."""

    def __post_init__(self) -> None:
        if self.trials_per_session % self.trials_per_shard:
            raise ValueError(
                f"{self.trials_per_shard} trials per shard do not divide {self.trials_per_session} trials per session"
            )
        if self.count is not None and not 0 <= self._whole - self.count < self.trials_per_session:
            raise ValueError(f"{self.count} trials do not end in the last of {len(self.sessions)} sessions")

    @property
    def _whole(self) -> int:
        return len(self.sessions) * self.trials_per_session

    @property
    def trials(self) -> int:
        """Trials in the whole store."""
        return self._whole if self.count is None else self.count

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array in shards, (trial, z, y, x) or (trial, vertex)."""
        return (self.trials, *self.volume_shape)

    @property
    def voxels(self) -> int:
        """Values in one trial."""
        return math.prod(self.volume_shape)

    @property
    def trial_bytes(self) -> int:
        """Decoded bytes of one trial."""
        return self.voxels * DTYPE_BYTES[self.dtype]

    @property
    def shards_per_session(self) -> int:
        """Shards in every session."""
        return self.trials_per_session // self.trials_per_shard

    @property
    def shards(self) -> int:
        """Shards in the whole store."""
        return -(-self.trials // self.trials_per_shard)

    def first_trial(self, session: SessionNumber) -> TrialInStore:
        """The first trial of *session* in the store. The only place of this rule."""
        return TrialInStore(self.sessions.index(session) * self.trials_per_session)

    def locate_trial(self, trial: int) -> tuple[SessionNumber, TrialInSession]:
        """Session and trial in session of trial *trial* of the store. Raises IndexError outside 0 .. trials - 1."""
        if not 0 <= trial < self.trials:
            raise IndexError(f"trial {trial} is outside the store's {self.trials} trials")
        position, inside = divmod(trial, self.trials_per_session)
        return self.sessions[position], TrialInSession(inside)

    def session_shards(self, session: SessionNumber) -> range:
        """Numbers of the shards that belong to *session*."""
        first = self.first_trial(session) // self.trials_per_shard
        return range(first, min(first + self.shards_per_session, self.shards))

    def session_trials(self, session: SessionNumber) -> range:
        """Trials of the store that belong to *session*."""
        first = self.first_trial(session)
        return range(first, min(first + self.trials_per_session, self.trials))

    def shard_trials(self, shard: int) -> range:
        """Trials of the store that lie in shard *shard*."""
        return range(shard * self.trials_per_shard, min((shard + 1) * self.trials_per_shard, self.trials))


def make_image_geometry(shape: tuple[int, ...], images_per_shard: int) -> Geometry:
    """How images of *shape* (image, row, column, channel) lie in a store: each block is a shard, the last may be short.

    The only place of this rule.
    """
    blocks = -(-shape[0] // images_per_shard)
    return Geometry(
        sessions=tuple(SessionNumber(number) for number in range(1, blocks + 1)),
        trials_per_session=images_per_shard,
        trials_per_shard=images_per_shard,
        volume_shape=tuple(shape[1:]),
        dtype="uint8",
        kind=IMAGES,
        count=shape[0],
    )


def choose_images_per_shard(images: int, image_bytes: int, chunk_images: int) -> int:
    """As many images as keep a decoded shard within DECODED_SHARD_BYTES, in whole chunks of *chunk_images* images.

    So that no chunk of the source lies in two shards of a store of all images. At least one chunk, at most all. The
    only place of this rule.
    """
    most = max(1, DECODED_SHARD_BYTES // max(1, image_bytes))
    return min(images, max(chunk_images, most - most % chunk_images))
