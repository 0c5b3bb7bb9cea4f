"""Whether files that are to be attached belong to a store: same subject, same space, same preparation of the betas."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nsd_zarr.config import Config
from nsd_zarr.conversion.plan import SourceWords, as_words, make_choice
from nsd_zarr.errors import SourceError
from nsd_zarr.places.choose import as_path
from nsd_zarr.source.find import SessionFile, find_session_files
from nsd_zarr.source.inspect import inspect_file
from nsd_zarr.source.origin import Origin, find_origin
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.root import Store
from nsd_zarr.store.small import read_array

_HINT = "Name the files of this store's subject and preparation: --subject, --space and --betas below an NSD root."


def check_provenance(store: Store, source: SourceWords, config: Config) -> None:
    """Refuse a source of another subject, space or preparation than the store's. Raises SourceError, DamageFound.

    By the names of folders, which the store has as `subject`, `space`, `betas`. Where these do not say, and session
    files are there, by the digest of one trial: that reads one session file once.
    """
    files = _find_files(source, config)
    for origin, path in _find_origins(source, files, config):
        for name, found in origin.make_attributes().items():
            expected = store.attributes.origin.get(name, found)
            if found != expected:
                raise SourceError(
                    f"{name} {found}, expected {expected} as in the store",
                    hint=_HINT,
                    path=path,
                    expected=expected,
                    found=found,
                )
    if files and not {"subject", "space", "betas"} <= set(store.attributes.origin):
        _compare_trial(store, files)


def _find_files(source: SourceWords, config: Config) -> list[SessionFile]:
    words = as_words(source, config)
    try:
        return find_session_files(words, make_choice(config)) if words else []
    except SourceError:
        return []


def _find_origins(source: SourceWords, files: list[SessionFile], config: Config) -> Iterator[tuple[Origin, Path]]:
    if config.ncsnr is not None:
        yield find_origin(config.ncsnr), config.ncsnr
    if files:
        yield find_origin(files[0].path), files[0].path.parent
    elif words := as_words(source, config):
        yield Origin(config.subject, config.space, config.betas), as_path(words[0])


def _compare_trial(store: Store, files: list[SessionFile]) -> None:
    file = next((file for file in files if file.session in store.geometry.sessions), None)
    if file is None:
        return
    info = inspect_file(file, store.attributes.dataset)
    trial = store.geometry.first_trial(file.session)
    values = np.empty((1, info.voxels), info.dtype)
    with ThreadPoolExecutor(1, "nsd-zarr compare") as executor, info.open() as reader:
        reader.read_into(range(1), values, executor)
    found, expected = make_digest(values), str(read_array(store, store.geometry.kind.digests)[trial])
    if found != expected:
        raise SourceError(
            "its first trial is not the one in the store: these are other betas",
            hint=_HINT,
            path=file.path,
            session=file.session,
            expected=expected,
            found=found,
        )
