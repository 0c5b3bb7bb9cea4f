"""What verify tells of a store that is not as it was written."""

from __future__ import annotations

from dataclasses import dataclass

from nsd_zarr.layout import SessionNumber
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import find_chunk_rows


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was written."""

    path: str
    """File inside the store."""
    problem: str
    """What was found."""
    session: SessionNumber | None = None
    """Session that it concerns, from 1; None for files that concern all."""
    trials: tuple[int, int] | None = None
    """First and last trial concerned, inclusive, in the store from 0."""
    offset: int | None = None
    """First byte concerned, in the file; None where it is the file as a whole."""
    length: int | None = None
    """Bytes concerned."""

    def __str__(self) -> str:
        parts = [] if self.session is None else [f"session {self.session:02d}"]
        if self.trials is not None:
            first, last = self.trials
            parts.append(f"trial {first}" if first == last else f"trials {first} to {last}")
        parts.append(self.path)
        if self.offset is not None and self.length:
            parts.append(f"bytes {self.offset} to {self.offset + self.length - 1}")
        return f"{', '.join(parts)}: {self.problem}"


def make_file_damage(store: Store, key: str, problem: str) -> Damage:
    """Damage to a file that is no shard: of the session whose volume it holds, or of all."""
    name, _, chunk = key.partition("/c/")
    member = store.members.get(name)
    if not chunk or member is None or member["dimension_names"][:1] != ["session_number"]:
        return Damage(key, problem)
    rows = find_chunk_rows(member)
    row = int(chunk.split("/")[0])
    is_one = rows == 1 and row < len(store.geometry.sessions)
    return Damage(key, problem, store.geometry.sessions[row] if is_one else None)


def make_shard_damage(store: Store, shard: int, problem: str) -> Damage:
    """Damage to a shard as a whole."""
    trials = store.geometry.shard_trials(shard)
    session, _ = store.geometry.locate_trial(trials.start)
    return Damage(make_shard_key(store.geometry, shard), problem, session, (trials.start, trials.stop - 1))


def make_trial_damage(
    store: Store, trial: int, problem: str, place: tuple[int, int] | tuple[None, None] = (None, None)
) -> Damage:
    """Damage to one trial, whose chunk lies at *place* (offset, length) of its shard."""
    session, _ = store.geometry.locate_trial(trial)
    key = make_shard_key(store.geometry, trial // store.geometry.trials_per_shard)
    return Damage(key, problem, session, (trial, trial), *place)
