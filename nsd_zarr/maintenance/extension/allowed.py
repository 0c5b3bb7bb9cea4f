"""What a store and a source must be for an extension, and whose settings count: the store's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nsd_zarr.config import Config
from nsd_zarr.conversion.experiment.files import ExperimentReport
from nsd_zarr.conversion.experiment.inspection import find_files_of_experiment, make_given_files
from nsd_zarr.conversion.ledger import Ledger, make_run_folder
from nsd_zarr.conversion.plan import Plan
from nsd_zarr.conversion.resume import refuse_other_settings
from nsd_zarr.conversion.settings import make_byte_versions
from nsd_zarr.errors import ConfigError, SourceError, StoreError
from nsd_zarr.maintenance.attach import LASTING
from nsd_zarr.places.choose import is_remote
from nsd_zarr.places.durable import PARTIAL_SUFFIX
from nsd_zarr.source.find import SessionFile, format_sessions, name_sessions
from nsd_zarr.source.origin import find_origin
from nsd_zarr.store.format import METADATA_NAME, SESSION_MEAN, Json
from nsd_zarr.store.root import Store

_SETTINGS = ("dataset", "trials_per_shard", "codec", "clevel")
"""Settings that can be asked for."""
_STAYS_WITHOUT = "the store has no experiment, and gets none: nsd-zarr attach gives it one"
_MAX_NAMED = 3
"""Files that a message names."""


def adopt_settings(store: Store, config: Config) -> Config:
    """*config* with the settings of a finished *store*, which count whatever the defaults are by now.

    Raises StoreError where one is asked for that the store does not have.
    """
    own = {name: store.attributes.settings[name] for name in _SETTINGS}
    asked = {name: getattr(config, name) for name in _SETTINGS if name in config.model_fields_set}
    different = [f"{name} {own[name]}, now {value}" for name, value in asked.items() if value not in (own[name], None)]
    refuse_other_settings(store, different)
    return config.model_copy(update=own)


def refuse_part(store: Path, config: Config) -> None:
    """Refuse to extend a store in parts. Raises StoreError."""
    if config.part is not None:
        raise StoreError(
            f"part {config.part}, and the store is finished: more sessions are added to it by one run",
            hint="Run the same command without --part.",
            path=store,
        )


def check_replaced(store: Store, files: Sequence[SessionFile], replaced: Sequence[int]) -> None:
    """Refuse to replace a session that the store or the source does not have. Raises ConfigError, SourceError."""
    has = store.geometry.sessions
    if strange := sorted({*replaced} - {*has}):
        raise ConfigError(
            f"replace_session: the store has no {name_sessions(strange)}, it has {name_sessions(has)}",
            hint="Name sessions that it has; those that it has not are added without being named.",
            path=store.path,
        )
    if lacking := sorted({*replaced} - {file.session for file in files}):
        raise SourceError(
            f"{name_sessions(lacking)} to be replaced, found {format_sessions(file.session for file in files)}",
            hint="Name a source that has it, and name it in --sessions where you give that.",
            path=files[0].path.parent,
        )


def check_extensible(store: Store, config: Config) -> Config:
    """Refuse a store that would not come out as a conversion of all sessions, or would lose something by it.

    Returns *config* with the experiment left out where the store has none, and none is named. Raises StoreError.
    """
    if is_remote(store.path):
        raise StoreError(
            "a store in an object store cannot be extended: its objects cannot be replaced as a whole, at one moment",
            hint="Make it anew from all sessions, under another name: nsd-zarr convert SOURCE NEW_STORE.",
            path=store.path,
        )
    versions, before = make_byte_versions(), store.attributes.libraries
    if different := [
        f"{name} {before.get(name)}, now {now}" for name, now in versions.items() if before.get(name) != now
    ]:
        raise StoreError(
            f"the store cannot be extended: other libraries made its shards: {', '.join(different)}",
            hint="Install those versions, or convert all sessions to another store.",
            path=store.path,
        )
    if SESSION_MEAN not in store.members:
        raise StoreError(
            "the store cannot be extended: it has no statistics, an early version made it",
            hint="nsd-zarr attach STORE SOURCE adds them; then run the same command again.",
            path=store.path,
        )
    if strange := list(_find_strange(store)):
        raise StoreError(
            f"the store cannot be extended: {', '.join(strange[:_MAX_NAMED])}{', ...' if strange[_MAX_NAMED:] else ''} "
            "in its folder is not of the store, and the folder is replaced as a whole",
            hint="Move it away, run the same command again, then put it back.",
            path=store.path,
        )
    real = Path(os.path.realpath(store.path))
    if os.stat(real).st_dev != os.stat(make_run_folder(store.path).parent).st_dev:
        raise StoreError(
            "the store cannot be extended: its folder is a mount point, which cannot be replaced as a whole",
            hint="Reach it by its path on the disk itself, or mount the folder above it.",
            path=store.path,
        )
    return _choose_experiment(store, config)


def _find_strange(store: Store) -> Iterator[str]:
    """What is in the folder of *store* and not of it, but for what killed runs and network file systems leave."""
    noted = Ledger(store.path).read_arrays() - {*store.members}
    for folder, folders, names in os.walk(store.path):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in sorted((*names, *links)):
            key = Path(folder, name).relative_to(store.path).as_posix()
            is_left = name.endswith(PARTIAL_SUFFIX) or name.startswith(".nfs") or key.split("/")[0] in noted
            if key != METADATA_NAME and key not in store.manifest and not is_left:
                yield key


# -- the experiment ----------------------------------------------------------------------------------------------


def _find_former_arrays(store: Store) -> set[str]:
    """Arrays of the experiment that *store* has."""
    return {*store.members} - {*LASTING}


def _choose_experiment(store: Store, config: Config) -> Config:
    has_one = bool(_find_former_arrays(store))
    if has_one and config.no_experiment:
        raise StoreError(
            "the store has an experiment, and no_experiment is asked for",
            hint="Take it out first: nsd-zarr attach STORE --no-experiment.",
            path=store.path,
        )
    if has_one or make_given_files(config).names_any:
        return config
    return config.model_copy(update={"no_experiment": True})


def check_experiment(store: Store, plan: Plan, files: Sequence[SessionFile], config: Config) -> ExperimentReport:
    """What there is to say of the experiment of the extended store. Raises SourceError where it would lose some of it.

    *config*: as it was asked for.
    """
    brought = set() if plan.experiment is None else {*plan.experiment.array_names}
    former = _find_former_arrays(store)
    if lost := sorted(former - brought):
        raise SourceError(
            f"the store has {', '.join(lost[:_MAX_NAMED])}{', ...' if lost[_MAX_NAMED:] else ''} of its experiment, "
            "and SOURCE has no file for it",
            hint="Give the NSD root as SOURCE, or name the files (--trial-table, --roi, ...); or attach another "
            "experiment first: nsd-zarr attach.",
            path=files[0].path.parent,
            expected=sorted(former),
            found=sorted(brought),
        )
    report = plan.experiment_report
    if former or brought or config.no_experiment:
        return report
    there = find_files_of_experiment(files, config, plan.settings.geometry)
    return report if there is None or there.is_empty else report.add_notes([_STAYS_WITHOUT])


def find_attributes(store: Store, plan: Plan, session_file: Path) -> Json:
    """Root attributes that come from the source, where its folders do not say as the store has them.

    Raises SourceError where they say otherwise.
    """
    own: Json = dict(store.attributes.origin)
    origin = find_origin(session_file).make_attributes()
    for name, found in origin.items():
        if own.get(name, found) != found:
            raise SourceError(
                f"{name} {found}, expected {own[name]} as in the store",
                hint="Name the files of this store's subject and preparation: --subject, --space and --betas below an "
                "NSD root.",
                path=session_file.parent,
                expected=own[name],
                found=found,
            )
    # Of a store without `space` the subject is that of its trial table, which says it again.
    former = own if "space" in own and not origin else {}
    return former | plan.source_attributes
