"""Whether the files of a store are those of its manifest: there, of their size, and with their content."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nsd_zarr.errors import DamageFound
from nsd_zarr.layout import TRIALS, SessionNumber
from nsd_zarr.maintenance.damage import Damage, make_file_damage, make_shard_damage
from nsd_zarr.places.choose import choose_place, is_remote
from nsd_zarr.store.digest import digest_object, join_digests, make_digest
from nsd_zarr.store.format import BETAS, METADATA_NAME, encode_json, make_chunk_key, make_shard_key
from nsd_zarr.store.reader import TrialReader
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import count_chunks, read_array


def check_files(store: Store, quick: bool) -> Iterator[Damage]:
    """Presence and size of every file, digest of small ones; when *quick*, index of every shard, else left to proof."""
    shards = {make_shard_key(store.geometry, number): number for number in range(store.geometry.shards)}
    # Left out of the manifest while an experiment is attached, which changes it: it is right before and after.
    known = {*store.manifest, f"{BETAS}/{METADATA_NAME}"}
    for key in sorted({*shards, *_list_documents(store)} - known):
        yield Damage(key, "the manifest does not know it")
    reader = TrialReader(store)
    for key, record in store.manifest.items():
        problem = find_file_problem(store.path, key, record.size, None if key in shards else record.digest)
        if quick and not problem and key in shards:
            problem = reader.find_index_problem(shards[key])
        if problem and key in shards:
            yield make_shard_damage(store, shards[key], problem)
        elif problem:
            yield make_file_damage(store, key, problem)
    for name, member in store.members.items():
        listed = store.manifest.get(f"{name}/{METADATA_NAME}")
        if listed is not None and listed.digest != make_digest(encode_json(member.make_document())):
            yield Damage(f"{name}/{METADATA_NAME}", "differs from its copy in the root document")
    yield from _check_digests(store)


def _list_documents(store: Store) -> Iterator[str]:
    """Every file but shards to which the root document leads."""
    for name, member in store.members.items():
        yield f"{name}/{METADATA_NAME}"
        if name != store.geometry.kind.array:
            zeros = tuple(0 for _ in member.shape[1:])
            for row in range(count_chunks(store, name)):
                yield make_chunk_key(name, (row, *zeros)[: len(member.shape)])


def find_untracked_files(store: Store) -> Iterator[str]:
    """Files in the store's folder that are not of the store, by their path inside it. Follows no links."""
    if is_remote(store.path):
        keys = (key for key in sorted(store.place.list_keys()))
        yield from (key for key in keys if key not in store.manifest and key != METADATA_NAME)
        return
    for folder, _, names in sorted(os.walk(store.path)):
        keys = (Path(folder, name).relative_to(store.path).as_posix() for name in sorted(names))
        yield from (key for key in keys if key not in store.manifest and key != METADATA_NAME)


def find_file_problem(store: Path, key: str, size: int, digest: str | None) -> str:
    """What is wrong with file *key* of *size* bytes and *digest* (None: not looked at); empty when nothing is."""
    try:
        opened = choose_place(store).open(key, size)
        if opened.size != size:
            return f"{opened.size} bytes, expected {size}"
        if digest is not None and digest_object(opened) != digest:
            return "its content changed: its digest is not the manifest's"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except ValueError as error:
        return str(error)
    return ""


def _check_digests(store: Store) -> Iterator[Damage]:
    """Whether the trials' digests add up to the sessions' in the root document."""
    try:
        digests = read_array(store, store.geometry.kind.digests).tolist()
    except (DamageFound, KeyError):
        return  # Told as a file already.
    kind = store.geometry.kind
    for source in store.attributes.sources:
        session = SessionNumber(source.part)
        trials = store.geometry.session_trials(session)
        if join_digests(digests[trials.start : trials.stop]) != source.digest:
            problem = f"does not add up to the digest of its {kind.part}"
            yield Damage(f"{kind.digests}/c/0", problem, session if kind == TRIALS else None)
