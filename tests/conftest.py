"""Fixtures of all folders: what tests/builders makes, in a folder of the test's own or shared and never changed."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from builders import MadeExperiment, MadeImages, MadeStore, MadeSubjects, Outcome, Recorder
from hypothesis import settings

import nsd_zarr

TRIALS, VOLUME = 6, (5, 7, 11)
MakeStore = Callable[..., MadeStore]

# A third of the examples while one works; `--hypothesis-profile=full`, as .ci/coverage takes it, tries all.
settings.register_profile("full", settings.default, max_examples=builders.ALL_EXAMPLES)
settings.register_profile("quick", settings.default, max_examples=builders.ALL_EXAMPLES // 3)
settings.load_profile("quick")


def pytest_configure() -> None:
    """Child processes keep what Python compiles: without, each compiles the package again, for 0.3 s."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    multiprocessing.set_forkserver_preload(["torch"])  # 3 s for each process that imports it by itself


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Modules of a group stay in one process, as `--dist loadgroup` says.

    pytest-xdist 3.8 marks the group in the names of tests, which pytest 9.2 no longer lets it change: each test would
    go its own way, and each process would make what takes longest.
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _find_group(config.rootpath / nodeid.partition("::")[0]) or nodeid

    return Scheduling(config, log)


@functools.cache
def _find_group(module: Path) -> str | None:
    found = re.search(r'xdist_group\("(\w+)"\)', module.read_text())
    return found and found[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first, so that two processes of pytest-xdist end at about the same time."""
    marks = ("xdist_group", "slow")
    items.sort(key=lambda item: next((n for n, mark in enumerate(marks) if item.get_closest_marker(mark)), len(marks)))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _interrupts() -> Iterator[None]:
    """SIGINT interrupts, here and in child processes, also where the tests were started in the background."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# -- sources -----------------------------------------------------------------------------------------------------


@pytest.fixture
def make_session(tmp_path) -> Callable[..., Path]:
    """Create one session file; every odd file is one keyword (builders.create_session)."""

    def make(session=1, *, folder="source", prefix="", trials=TRIALS, volume=VOLUME, **odd) -> Path:
        path = tmp_path / folder / f"{prefix}betas_session{session:02d}.hdf5"
        return builders.create_session(path, session=session, trials=trials, shape=volume, **odd).path

    return make


@pytest.fixture
def make_source(tmp_path) -> Callable[..., Path]:
    """Create a folder of sessions; returns it."""

    def make(sessions=(1, 2, 3), folder="source", *, trials=TRIALS, volume=VOLUME, **odd) -> Path:
        return builders.create_source(tmp_path / folder, sessions, trials=trials, shape=volume, **odd)

    return make


@pytest.fixture(scope="session")
def prepared_source(tmp_path_factory) -> Path:
    """Three sessions of six trials in the dataset's own layout. Never to be changed: `source` is a copy."""
    return builders.create_source(
        tmp_path_factory.mktemp("prepared") / "source", (1, 2, 3), trials=TRIALS, shape=VOLUME
    )


@pytest.fixture(scope="session")
def prepared_store(prepared_source) -> Path:
    """Their store in nine shards of two trials, its run beside it. Never to be changed: `copied_store` is a copy."""
    store = prepared_source.with_name("subj01.zarr")
    nsd_zarr.convert(prepared_source, store, trials_per_shard=2, workers=2)
    return store


@pytest.fixture
def source(prepared_source, tmp_path) -> Path:
    """Three sessions of six trials in the dataset's own layout."""
    return shutil.copytree(prepared_source, tmp_path / "source")


@pytest.fixture
def copied_store(prepared_store, tmp_path) -> Path:
    """The store of `source` in nine shards of two trials, and its run."""
    for name in (prepared_store.name, f"{prepared_store.name}.run"):
        shutil.copytree(prepared_store.with_name(name), tmp_path / name)
    return tmp_path / prepared_store.name


@pytest.fixture
def read_source() -> Callable[..., np.ndarray]:
    return builders.read_source


@pytest.fixture(scope="session")
def subjects(tmp_path_factory) -> MadeSubjects:
    """An NSD root of two subjects of different shape, three sessions each. Never changed."""
    return builders.create_subjects(tmp_path_factory.mktemp("subjects") / "nsd", images=73_000)


@pytest.fixture(scope="session")
def whole_tree(subjects, tmp_path_factory) -> Path:
    """The store of these subjects, a group each. Never changed."""
    tree = tmp_path_factory.mktemp("tree") / "nsd.zarr"
    nsd_zarr.convert(subjects.root, tree, subjects="1-2", workers=1)
    return tree


@pytest.fixture
def tree(whole_tree, tmp_path) -> Path:
    """A copy of it with its run folder, to be damaged."""
    shutil.copytree(whole_tree.with_name("nsd.zarr.run"), tmp_path / "nsd.zarr.run")
    return shutil.copytree(whole_tree, tmp_path / "nsd.zarr")


# -- conversions -------------------------------------------------------------------------------------------------


@pytest.fixture
def make_recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture(scope="session")
def digest_tree() -> Callable[[Path], dict[str, str]]:
    return builders.digest_tree


@pytest.fixture
def recorded_sessions() -> Callable[[Path], list[int]]:
    return builders.read_recorded_sessions


@pytest.fixture
def convert(tmp_path) -> Callable[..., Path]:
    """Convert a folder to the store of a name; returns the store."""

    def make(source, name="subj01.zarr", **options) -> Path:
        nsd_zarr.convert(source, tmp_path / name, **{"trials_per_shard": 2, "workers": 2} | options)
        return tmp_path / name

    return make


@pytest.fixture
def interrupt(tmp_path) -> Callable[..., Path]:
    """Begin a conversion and stop it, as Ctrl-C does, at a trial; returns the unfinished store."""

    def stop():
        raise KeyboardInterrupt

    def make(source, name="subj01.zarr", at_trial=9, **options) -> Path:
        options = {"trials_per_shard": 2, "workers": 1} | options
        with pytest.raises(KeyboardInterrupt):
            nsd_zarr.convert(source, tmp_path / name, on_event=Recorder(at_trial, stop), **options)
        return tmp_path / name

    return make


@pytest.fixture
def stop_at_rename() -> Callable[[int], AbstractContextManager[None]]:
    return builders.stop_at_rename


@pytest.fixture
def make_disk(tmp_path) -> Iterator[Callable[..., Path]]:
    """Mount a small file system of its own; unmounted when the test ends. Skips where one may not."""
    mounted = []

    def make(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("a file system of its own needs root and the permission to mount")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


# -- command lines -----------------------------------------------------------------------------------------------


@pytest.fixture
def run_cli(capsys) -> Callable[..., Outcome]:
    """Run one command line in this process."""
    return functools.partial(builders.run_cli, capsys)


@pytest.fixture
def check_refused(run_cli, tmp_path) -> Callable[..., str]:
    """Run a command line that must be refused with *code*, and must write nothing; returns its paragraph."""

    def check(code, *words) -> str:
        before = builders.digest_tree(tmp_path)
        outcome = run_cli(*words)
        assert outcome.code == code, outcome.err
        assert builders.digest_tree(tmp_path) == before
        return outcome.paragraph

    return check


@pytest.fixture
def start_cli() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start one command line as a process of its own; killed when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(*words, **options) -> subprocess.Popen[str]:
            process = builders.start_cli(*words, **options)
            stack.callback(process.communicate)
            stack.callback(lambda: process.poll() is None and process.kill())
            return process

        yield start


@pytest.fixture
def run_child(start_cli) -> Callable[..., Outcome]:
    """Run one command line as a process of its own."""
    return lambda *words, **options: builders.finish(start_cli(*words, **options))


@pytest.fixture
def run_on_terminal() -> Callable[..., Outcome]:
    return builders.run_on_terminal


@pytest.fixture
def without_privileges() -> list[str]:
    return builders.find_prefix_without_privileges()


# -- stores that are only read -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """Make a small store in a folder of its own; the odd store is a keyword (builders.make_store)."""
    return lambda *values, **odd: builders.make_store(tmp_path_factory.mktemp("store"), *values, **odd)


@pytest.fixture(scope="session")
def volumes(make_store: MakeStore) -> MadeStore:
    """int16 volumes: what NSD delivers. Never to be changed: copy it."""
    return make_store()


@pytest.fixture(scope="session")
def surfaces(make_store: MakeStore) -> MadeStore:
    """int16 surfaces, (trial, vertex)."""
    return make_store(builders.make_values(0, 42, (23,)))


@pytest.fixture(scope="session")
def floats(make_store: MakeStore) -> MadeStore:
    """float32 volumes with NaN and infinity: percent signal change already."""
    values = builders.make_values(0, 28, (5, 3, 11), "<f4", nan=True)
    values.reshape(-1)[5:8] = np.inf, -np.inf, -0.0
    return make_store(values, sessions=(1, 2))


@pytest.fixture(scope="session")
def every_code(make_store: MakeStore) -> MadeStore:
    """A store in which each of the 65,536 int16 codes occurs."""
    values = (np.arange(263 * 5 * 17 * 3) % 65_536 - 32_768).astype("int16").reshape(263, 5, 17, 3)
    return make_store(values, sessions=(1,), trials_per_shard=263)


@pytest.fixture(scope="session")
def experiment(make_store: MakeStore) -> MadeExperiment:
    """Volumes with trial table, ROIs, statistics and affine: sessions 2, 3 and 5 of 14 trials. Never to be changed."""
    return builders.add_experiment(make_store(builders.make_shuffled_values(42, (5, 11, 3))))


@pytest.fixture(scope="session")
def extend_store() -> Callable[..., None]:
    return builders.add_arrays


@pytest.fixture(scope="session")
def make_experiment() -> Callable[..., MadeExperiment]:
    return builders.add_experiment


@pytest.fixture(scope="session")
def make_stimuli() -> Callable[..., np.ndarray]:
    return builders.create_stimuli


@pytest.fixture(scope="session")
def make_trial_table_of() -> Callable[..., None]:
    return builders.create_trial_table


@pytest.fixture(scope="session")
def stimulus_images(tmp_path_factory, experiment) -> MadeImages:
    """The images that the trials of `experiment` show, and all others. Never to be changed."""
    return builders.create_images(tmp_path_factory.mktemp("images"), experiment.arrays["nsd_id"])
