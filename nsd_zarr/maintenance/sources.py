"""The sources of a finished store, found again: session files, or the stimulus file of a store of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nsd_zarr.config import Config
from nsd_zarr.conversion.image_plan import ALL, find_wanted, plan_block_memory
from nsd_zarr.conversion.memory import MemoryPlan, Need, make_memory_plan
from nsd_zarr.conversion.plan import SourceWords, as_words, find_files
from nsd_zarr.conversion.remote.fetching import fetch_to_disk
from nsd_zarr.errors import DamageFound, SourceError
from nsd_zarr.forms import find_form
from nsd_zarr.image_sets import NSD
from nsd_zarr.layout import IMAGES, Geometry, SessionNumber
from nsd_zarr.nsd import HEMISPHERES
from nsd_zarr.places.choose import as_path
from nsd_zarr.source.find import SessionFile, select_sessions
from nsd_zarr.source.images import make_blocks
from nsd_zarr.source.inspect import inspect_file
from nsd_zarr.source.protocol import SourcePart
from nsd_zarr.source.stimuli import StimulusInfo
from nsd_zarr.source.stimuli import find_files as find_stimulus_files
from nsd_zarr.store.digest import make_digest
from nsd_zarr.store.root import Store, find_id_array
from nsd_zarr.store.small import read_array


def find_sources(
    store: Store, source: SourceWords, config: Config, sessions: Sequence[SessionNumber] | None = None
) -> Sequence[SourcePart]:
    """The session files of *store*, or of *sessions* of it, inspected. Raises SourceError where one is unfit."""
    sessions = store.geometry.sessions if sessions is None else tuple(sessions)
    if store.geometry.kind == IMAGES:
        return find_blocks(store, source, config, sessions)
    files = select_sessions(_find_like(store, source, config.model_copy(update={"sessions": sessions})), sessions)
    infos = [inspect_file(file, store.attributes.dataset) for file in files]
    expected = (store.geometry.trials_per_session, *store.geometry.volume_shape)
    for info in infos:
        if info.shape != expected or info.dtype != store.geometry.dtype:
            raise SourceError(
                f"{info.dtype} of shape {info.shape}, expected {store.geometry.dtype} of shape {expected} as stored",
                hint="Give the sources from which this store was made.",
                path=info.path,
                session=info.session,
            )
    return fetch_to_disk(infos, config)


def _find_like(store: Store, source: SourceWords, config: Config) -> list[SessionFile]:
    """The session files of *store*: of the hemisphere that it has, and of the form that it was made of, if it is there.

    Raises SourceError.
    """
    lacking = [side for side, count in zip(HEMISPHERES, store.geometry.vertices or (1, 1), strict=True) if not count]
    if lacking and config.hemisphere is None:
        other = HEMISPHERES[1 - HEMISPHERES.index(lacking[0])]
        config = config.model_copy(update={"hemisphere": other})
    form = find_form(Path(store.attributes.sources[0].name))
    if config.form is None and form is not None:
        try:
            return find_files(source, config.model_copy(update={"form": form.name}))
        except SourceError:
            pass
    return find_files(source, config)


def plan_memory(geometry: Geometry, infos: Sequence[SourcePart], config: Config, *, by_offset: bool) -> MemoryPlan:
    """How sessions are read again, one at a time. Raises DoesNotFit."""
    if geometry.kind == IMAGES:
        return plan_block_memory(geometry, infos[0], 1, config)
    need = Need(geometry, by_offset=by_offset, chunk_bytes=max(info.chunk_bytes for info in infos))
    return make_memory_plan(need, 1, config.effective_workers, config.effective_memory)


def find_blocks(
    store: Store, source: SourceWords, config: Config, numbers: Sequence[SessionNumber]
) -> Sequence[SourcePart]:
    """Blocks *numbers* of a store of images, in the stimulus file that *source* means. Raises SourceError."""
    files = _inspect_source(store, source, config)
    blocks = make_blocks(files, find_ids(store, source, config), store.geometry.trials_per_shard)
    return [block for block in blocks if block.session in numbers]


def _inspect_source(store: Store, source: SourceWords, config: Config) -> tuple[StimulusInfo, ...]:
    words, shape, settings = as_words(source, config), store.geometry.volume_shape, store.attributes.settings
    experiment, subject = settings.get("experiment", NSD), settings.get("subject")
    file, *others = find_stimulus_files(as_path(words[0]), experiment, subject, store.attributes.dataset)
    if file.shape[1:] != shape or len(words) > 1:
        raise SourceError(
            f"images of shape {file.shape[1:]} in {len(words)} files, expected one file with images of {shape} as "
            "stored",
            hint="Give the stimulus file from which this store was made.",
            path=file.path,
            expected=shape,
            found=file.shape[1:],
        )
    return file, *others


def find_ids(store: Store, source: SourceWords, config: Config) -> Sequence[int]:
    """0-based ids of a store's images; where it has lost them, as *config* selects them of *source* once more.

    Raises SourceError, ConfigError, and DamageFound where they cannot be found out.
    """
    try:
        return tuple(read_array(store, find_id_array(store)).tolist())
    except DamageFound:
        selection = store.attributes.settings["selection"]
        if selection == ALL:
            return range(store.geometry.trials)
        wanted = find_wanted(_inspect_source(store, source, config), config)
        if make_digest(np.array(wanted, "<i4")) != selection:
            raise
        return wanted
