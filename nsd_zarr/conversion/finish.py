"""The first and the last files of a store: its skeleton, and what makes it complete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.conversion.ledger import SessionRecord
from nsd_zarr.conversion.settings import Settings, make_library_versions
from nsd_zarr.store.digest import join_digests, make_digest
from nsd_zarr.store.durable import make_folder, make_place, write_durably
from nsd_zarr.store.format import (
    BETAS,
    CONVENTIONS,
    FORMAT,
    FORMAT_VERSION,
    METADATA_NAME,
    Json,
    encode_json,
    encode_small,
    make_betas_metadata,
    make_chunk_key,
    make_root_metadata,
    make_small_metadata,
)
from nsd_zarr.store.root import COMPLETE, INCOMPLETE


def create_skeleton(store: Path, settings: Settings) -> None:
    """Create the store, or what is missing of its skeleton: a root that says incomplete, the metadata of `betas`."""
    metadata = make_betas_metadata(settings.geometry, settings.blosc)
    make_folder(store)
    write_durably(store / METADATA_NAME, make_root_metadata(_make_attributes(settings, INCOMPLETE), {BETAS: metadata}))
    write_durably(make_place(store, f"{BETAS}/{METADATA_NAME}"), encode_json(metadata))


def finish_store(store: Path, settings: Settings, records: Sequence[SessionRecord]) -> None:
    """Write the coordinates and digests, then the root with manifest and status `complete`: the last write of all.

    Depends on settings and records alone, so that it may be done again after any interruption.
    """
    documents = make_documents(settings, records)
    # Written already, by create_skeleton.
    del documents[f"{BETAS}/{METADATA_NAME}"]
    for key, data in documents.items():
        write_durably(make_place(store, key), data)


def make_documents(settings: Settings, records: Sequence[SessionRecord]) -> dict[str, bytes]:
    """Every file of a finished store but its shards, by path inside it; the root, which completes it, last."""
    metadata = {BETAS: make_betas_metadata(settings.geometry, settings.blosc)}
    documents = {f"{BETAS}/{METADATA_NAME}": encode_json(metadata[BETAS])}
    for name, (values, dims, attributes) in _make_small_arrays(settings, records).items():
        metadata[name] = make_small_metadata(values, dims, attributes)
        documents[f"{name}/{METADATA_NAME}"] = encode_json(metadata[name])
        documents[make_chunk_key(name, tuple(0 for _ in values.shape))] = encode_small(values)
    manifest = {shard.key: [shard.size, shard.digest, shard.tail] for record in records for shard in record.shards}
    manifest |= {key: [len(data), make_digest(data)] for key, data in documents.items()}
    attributes = _make_attributes(settings, COMPLETE) | {
        "sources": _make_sources(records),
        "manifest": dict(sorted(manifest.items())),
    }
    return documents | {METADATA_NAME: make_root_metadata(attributes, dict(sorted(metadata.items())))}


def _make_attributes(settings: Settings, status: str) -> Json:
    return {
        "Conventions": CONVENTIONS,
        "title": "Natural Scenes Dataset, single-trial betas",
        "references": "Allen et al. 2022, Nature Neuroscience, https://doi.org/10.1038/s41593-021-00962-x",
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "status": status,
        "libraries": make_library_versions(),
        "settings": settings.make_attributes(),
    }


def _make_sources(records: Iterable[SessionRecord]) -> list[Json]:
    return [
        {
            "session": int(record.session),
            "name": record.source.name,
            "size": record.source.size,
            "digest": join_digests(record.trial_digests),
        }
        for record in records
    ]


def _make_small_arrays(
    settings: Settings, records: Sequence[SessionRecord]
) -> dict[str, tuple[np.ndarray, tuple[str, ...], dict[str, Any]]]:
    """Name -> values, dimensions, attributes."""
    geometry = settings.geometry
    sessions = np.array(geometry.sessions, np.int16)
    digests = np.array([digest for record in records for digest in record.trial_digests], np.str_)
    inside = np.tile(np.arange(geometry.trials_per_session, dtype=np.int16), len(sessions))
    return {
        "session": (
            np.repeat(sessions, geometry.trials_per_session),
            ("trial",),
            {"long_name": "scan session, counted from 1"},
        ),
        "trial_in_session": (inside, ("trial",), {"long_name": "trial in its session, counted from 0"}),
        "session_number": (sessions, ("session_number",), {"long_name": "scan sessions in this store"}),
        "trial_digest": (
            digests,
            ("trial",),
            {"long_name": "xxh3-128 of the trial's stored values (C order, little-endian), hexadecimal"},
        ),
    }
