"""What verify reports of a store that is not as it was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nsd_zarr.errors import DamageFound
from nsd_zarr.image_sets import ID_WORDS, NSD
from nsd_zarr.layout import TRIALS, SessionNumber
from nsd_zarr.nsd import find_subject_name
from nsd_zarr.store.format import make_shard_key
from nsd_zarr.store.root import Store, find_id_array
from nsd_zarr.store.small import find_chunk_rows, read_array


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it was written.

    >>> os.remove("subj01.zarr/session/c/0")
    >>> damage, = nsd_zarr.verify("subj01.zarr").damages
    >>> print(damage)
    session/c/0: missing
    >>> damage.session is None  # it concerns all sessions
    True
    """

    path: str
    """File inside the store."""
    problem: str
    """What was found."""
    session: SessionNumber | None = None
    """Session that it concerns, from 1; None for files that concern all."""
    trials: tuple[int, int] | None = None
    """First and last trial (or image) concerned, inclusive, in the store from 0."""
    offset: int | None = None
    """First byte concerned, in the file; None where it is the file as a whole."""
    length: int | None = None
    """Bytes concerned."""
    images: tuple[int, int] | None = None
    """First and last image concerned, inclusive, 0-based 73k ids; of a store of images that knows them.

    Of a store of images of another *experiment* their 0-based ids there.
    """
    subject: int | None = None
    """Subject whose group it concerns, in a store of several; None for what is above them."""

    experiment: str | None = None
    """Whose images they are, nsdsynthetic; None for the core experiment, and for trials."""

    def __str__(self) -> str:
        parts = [] if self.subject is None else [f"subject {self.subject}"]
        parts += [] if self.session is None else [f"session {self.session:02d}"]
        if self.images is not None:
            first, last = self.images
            parts.append(f"image {first}" if first == last else f"images {first} to {last}")
            parts[-1] += f" ({ID_WORDS[self.experiment or NSD]})"
        elif self.trials is not None:
            first, last = self.trials
            parts.append(f"trial {first}" if first == last else f"trials {first} to {last}")
        parts.append(self.path)
        if self.offset is not None and self.length:
            parts.append(f"bytes {self.offset} to {self.offset + self.length - 1}")
        return f"{', '.join(parts)}: {self.problem}"


def join_damages(damages: Mapping[int, Iterable[Damage]]) -> tuple[Damage, ...]:
    """Damage of several subjects' groups, by subject, as that of the store above them."""
    return tuple(
        replace(each, subject=subject, path=f"{find_subject_name(subject)}/{each.path}")
        for subject, found in damages.items()
        for each in found
    )


def make_file_damage(store: Store, key: str, problem: str) -> Damage:
    """Damage to a file that is no shard: of the session whose volume it holds, or of all."""
    name, _, chunk = key.partition("/c/")
    member = store.members.get(name)
    if not chunk or member is None or member.dims[:1] != ("session_number",):
        return Damage(key, problem)
    rows = find_chunk_rows(member)
    row = int(chunk.split("/")[0])
    is_one = rows == 1 and row < len(store.geometry.sessions)
    return Damage(key, problem, store.geometry.sessions[row] if is_one else None)


def make_shard_damage(store: Store, shard: int, problem: str) -> Damage:
    """Damage to a shard as a whole."""
    trials = store.geometry.shard_trials(shard)
    whole = (trials.start, trials.stop - 1)
    session, images = _find_place(store, whole)
    experiment = store.attributes.settings.get("experiment")
    return Damage(make_shard_key(store.geometry, shard), problem, session, whole, images=images, experiment=experiment)


def make_trial_damage(
    store: Store, trial: int, problem: str, place: tuple[int, int] | tuple[None, None] = (None, None)
) -> Damage:
    """Damage to one trial, whose chunk lies at *place* (offset, length) of its shard."""
    session, images = _find_place(store, (trial, trial))
    key = make_shard_key(store.geometry, trial // store.geometry.trials_per_shard)
    experiment = store.attributes.settings.get("experiment")
    return Damage(key, problem, session, (trial, trial), place[0], place[1], images, experiment=experiment)


def _find_place(store: Store, trials: tuple[int, int]) -> tuple[SessionNumber | None, tuple[int, int] | None]:
    """The session of some trials; or the 73k ids of the first and last of some images, where the store has them."""
    if store.geometry.kind == TRIALS:
        return store.geometry.locate_trial(trials[0])[0], None
    try:
        ids = read_array(store, find_id_array(store))
    except DamageFound:
        return None, None
    return None, (int(ids[trials[0]]), int(ids[trials[1]]))
