"""The first and the last files of a store: its skeleton, and what makes it complete."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from nsd_zarr.conversion.contents import Contents, SmallArray, make_statistics_arrays, make_vertex_arrays
from nsd_zarr.conversion.experiment.arrays import make_experiment_arrays
from nsd_zarr.conversion.experiment.files import TRIAL_ARRAYS, Experiment
from nsd_zarr.conversion.experiment.validity import compare_valid
from nsd_zarr.conversion.ledger import Ledger, SessionRecord
from nsd_zarr.conversion.lock import HeldLock
from nsd_zarr.conversion.root_copy import write_root
from nsd_zarr.conversion.settings import AnySettings, Settings, make_library_versions
from nsd_zarr.layout import IMAGES, TRIALS
from nsd_zarr.places.choose import choose_place
from nsd_zarr.places.durable import sync_folder
from nsd_zarr.source.origin import Origin
from nsd_zarr.store.attributes import COMPLETE, INCOMPLETE
from nsd_zarr.store.digest import join_digests
from nsd_zarr.store.format import (
    BETAS,
    CONVENTIONS,
    FORMAT_VERSION,
    FORMATS,
    HEMISPHERES,
    METADATA_NAME,
    ROI,
    Json,
    encode_json,
    find_minor,
    make_betas_metadata,
    make_root_metadata,
)
from nsd_zarr.store.volume import write_file

_TITLES = {TRIALS: "single-trial betas", IMAGES: "stimulus images"}


def create_skeleton(store: Path, settings: AnySettings) -> None:
    """Create the store, or what is missing of its skeleton: a root that says incomplete, the metadata of its shards."""
    array, metadata, place = settings.geometry.kind.array, settings.make_metadata(), choose_place(store)
    place.write(METADATA_NAME, make_root_metadata(make_attributes(settings, INCOMPLETE), {array: metadata}))
    place.write(f"{array}/{METADATA_NAME}", encode_json(metadata))


def finish_store(
    store: Path,
    settings: Settings,
    records: Sequence[SessionRecord],
    experiment: Experiment | None = None,
    source_attributes: Json | None = None,
    lock: HeldLock | None = None,
) -> None:
    """Write what lies beside the shards, then the root with manifest and status `complete`, after a copy of it.

    *source_attributes*: see make_source_attributes. Depends on these arguments alone, so that it may be done again
    after any interruption. Raises SourceError when a file of the experiment changed since it was inspected.
    """
    Ledger(store).note_arrays(() if experiment is None else experiment.array_names)
    contents = Contents(partial(write_while_held, store, lock))
    experiment = compare_valid(experiment, settings.geometry, store)
    root = lay_out(contents, store, settings, records, experiment, source_attributes)
    write_root(store, root, lock)
    remove_unlisted_arrays(store, contents.members)


def write_while_held(store: Path, lock: HeldLock | None, key: str, data: bytes) -> None:
    """Write file *key* of the store, as long as its lock is held. Raises StoreError or DoesNotFit."""
    if lock is not None:
        lock.check_sometimes()
    write_file(store, key, data)


def lay_out(
    contents: Contents,
    store: Path,
    settings: Settings,
    records: Sequence[SessionRecord],
    experiment: Experiment | None,
    source_attributes: Json | None = None,
) -> bytes:
    """Every file of a finished store: all but shards and statistics are given to *contents*, the root is returned.

    *store*: where the statistics are read that the experiment needs.
    """
    geometry = settings.geometry
    coordinates = () if experiment is None else experiment.coordinates
    contents.add_metadata(BETAS, make_betas_metadata(geometry, settings.blosc, coordinates))
    for record in records:
        contents.add_files(record.shards)
        contents.add_files(record.statistics)
    contents.add_arrays(_make_coordinates(settings, records), settings.blosc)
    if geometry.vertices is not None:
        contents.add_arrays(make_vertex_arrays(geometry.vertices), settings.blosc)
    rails = (record.rail_count for record in records)
    contents.add_arrays(make_statistics_arrays(geometry.sessions, geometry.volume_shape, rails), settings.blosc)
    attributes = (
        make_attributes(settings, COMPLETE) | {"sources": make_sources(settings, records)} | (source_attributes or {})
    )
    if experiment is not None:
        contents.add_arrays(make_experiment_arrays(experiment, geometry, store), settings.blosc)
        attributes |= experiment.make_attributes()
    return make_root(attributes, contents)


def make_source_attributes(origin: Origin, notes: Sequence[str]) -> Json:
    """Root attributes that come from the source: `subject`, `space`, `betas`, and `notes`, where there are any."""
    return origin.make_attributes() | ({"notes": list(notes)} if notes else {})


def make_root(attributes: Json, contents: Contents) -> bytes:
    """The root document: *attributes*, the manifest, the metadata of all arrays; `format_minor` as these need it."""
    minor = find_minor(contents.members)
    attributes = {name: value for name, value in attributes.items() if name != "format_minor"}
    attributes |= {"format_minor": minor} if minor else {}
    attributes |= {"manifest": dict(sorted(contents.manifest.items()))}
    return make_root_metadata(attributes, dict(sorted(contents.members.items())))


def remove_unlisted_arrays(store: Path, members: Container[str]) -> None:
    """Remove what is left of arrays of an experiment that are none of *members*, and forget that they were noted.

    Those alone that a run noted before it wrote or removed them (Ledger.note_arrays): what the user added stays,
    whatever its name. Found with or without metadata, so that a removal that was killed is finished.
    """
    ledger, place = Ledger(store), choose_place(store)
    noted = ledger.read_arrays()
    for name in sorted(noted):
        if name not in members and is_name_of_experiment(name) and _holds_array_alone(store / name):
            place.remove_below(name)
    if noted:
        sync_folder(store)  # The note goes once no power cut can bring back what it names.
        ledger.forget_arrays()


def is_name_of_experiment(name: str) -> bool:
    """Whether an array of an experiment may have this name."""
    if "/" in name:
        return False
    return name in (*TRIAL_ARRAYS, "brainmask", "ncsnr", "valid", "affine") or name.startswith((ROI, HEMISPHERES))


def _holds_array_alone(folder: Path) -> bool:
    """Whether nothing is in *folder* but the metadata and chunks of one array, or a part of them."""
    try:
        return not folder.is_symlink() and {entry.name for entry in folder.iterdir()} <= {"c", METADATA_NAME}
    except (FileNotFoundError, NotADirectoryError):
        return False


def make_attributes(settings: AnySettings, status: str) -> Json:
    """The root attributes that every store has, finished or not, but for its checksum."""
    return {
        "Conventions": CONVENTIONS,
        "title": f"Natural Scenes Dataset, {_TITLES[settings.geometry.kind]}",
        "references": "Allen et al. 2022, Nature Neuroscience, https://doi.org/10.1038/s41593-021-00962-x",
        "format": FORMATS[settings.geometry.kind],
        "format_version": FORMAT_VERSION,
        "status": status,
        "libraries": make_library_versions(),
        "settings": settings.make_attributes(),
    }


def make_sources(settings: AnySettings, records: Iterable[SessionRecord]) -> list[Json]:
    """Root attribute `sources`: of each session, or block of images, the file and the digest of what it held.

    And where its voxels lie, where it says so: of NIfTI.
    """
    return [
        {
            settings.geometry.kind.part: int(record.session),
            "name": record.source.name,
            "size": record.source.size,
            "digest": join_digests(record.trial_digests),
        }
        | ({"affine": [list(row) for row in record.affine]} if record.affine is not None else {})
        for record in records
    ]


def _make_coordinates(settings: Settings, records: Sequence[SessionRecord]) -> Iterator[SmallArray]:
    geometry = settings.geometry
    sessions = np.array(geometry.sessions, np.int16)
    digests = np.array([digest for record in records for digest in record.trial_digests], np.str_)
    inside = np.tile(np.arange(geometry.trials_per_session, dtype=np.int16), len(sessions))

    def make(name: str, values: np.ndarray, about: str, dim: str = "trial") -> SmallArray:
        return SmallArray(name, values, (dim,), {"long_name": about})

    yield make("session", np.repeat(sessions, geometry.trials_per_session), "scan session, counted from 1")
    yield make("trial_in_session", inside, "trial in its session, counted from 0")
    yield make("session_number", sessions, "scan sessions in this store", "session_number")
    about = "xxh3-128 of the trial's stored values (C order, little-endian), hexadecimal"
    yield make("trial_digest", digests, about)
