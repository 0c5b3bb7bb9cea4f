"""Fixtures of what runs conversions: small sessions whose values tell their place, stores made of them, commands."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash

import nsd_zarr
from nsd_zarr.cli.main import run
from nsd_zarr.conversion.events import SessionDone, TrialsDone

TRIALS, VOLUME = 6, (5, 7, 11)
CLI = "from nsd_zarr.cli import main; main()"


# -- sources -----------------------------------------------------------------------------------------------------


def make_values(session, trials=TRIALS, volume=VOLUME, dtype="<i2", nan=False):
    """Values that tell session, trial, z, y, x: counted through, never zero."""
    count = trials * math.prod(volume)
    places = (np.arange(count) + (session - 1) * count) % 32_749 + 1
    values = places.reshape(trials, *volume).astype(dtype)
    if nan:
        values.reshape(-1)[::13] = np.nan
    return values


@pytest.fixture
def make_session(tmp_path) -> Callable[..., Path]:
    """Write one session file; every odd file is one keyword."""

    def make(
        session=1,
        *,
        folder="source",
        prefix="",
        layout="rows",
        userblock=0,
        name="betas",
        values=None,
        trials=TRIALS,
        volume=VOLUME,
        **kind,
    ) -> Path:
        path = tmp_path / folder / f"{prefix}betas_session{session:02d}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = make_values(session, trials, volume, **kind) if values is None else values
        options = {
            "rows": {"chunks": (trials, *(1 for _ in volume))},
            "contiguous": {},
            "gzip": {"chunks": (1, *volume), "compression": "gzip", "shuffle": True},
        }[layout]
        with h5py.File(path, "w", libver="earliest", userblock_size=userblock) as file:
            file.create_dataset(name, data=values, dtype=values.dtype, **options)
        return path

    return make


@pytest.fixture
def make_source(make_session, tmp_path) -> Callable[..., Path]:
    """Write a folder of sessions; returns it."""

    def make(sessions=(1, 2, 3), folder="source", **kind) -> Path:
        for session in sessions:
            make_session(session, folder=folder, **kind)
        return tmp_path / folder

    return make


@pytest.fixture
def source(make_source) -> Path:
    """Three sessions of six trials in the dataset's own layout."""
    return make_source()


@pytest.fixture
def read_source() -> Callable[[Path], np.ndarray]:
    """The oracle: all sessions of a folder through h5py, one behind the other."""

    def read(folder: Path, name="betas") -> np.ndarray:
        parts = []
        for path in sorted(folder.glob("*.hdf5")):
            with h5py.File(path, "r") as file:
                parts.append(file[name][()])
        return np.concatenate(parts)

    return read


# -- stores ------------------------------------------------------------------------------------------------------


class Recorder:
    """A listener that keeps what it was told, from any thread, and may act at one trial."""

    def __init__(self, at_trial: int | None = None, act: Callable[[], None] = lambda: None) -> None:
        self.events: list[object] = []
        self._at, self._act = at_trial, act
        self._lock = threading.Lock()

    def __call__(self, event: object) -> None:
        with self._lock:
            self.events.append(event)
            count = self.trials
        if isinstance(event, TrialsDone) and count == self._at:
            self._act()

    @property
    def trials(self) -> int:
        return sum(event.trials for event in self.events if isinstance(event, TrialsDone))

    @property
    def sessions(self) -> list[int]:
        """Sessions that were done, whether converted or compared, ascending."""
        return sorted(event.session for event in self.events if isinstance(event, SessionDone))


@pytest.fixture
def make_recorder() -> type[Recorder]:
    return Recorder


def digest_tree(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder, and its folders; that is, all that byte-identical means."""

    def digest(path: Path) -> str:
        if path.is_symlink():
            return f"link to {path.readlink()}"
        return "folder" if path.is_dir() else xxhash.xxh3_128_hexdigest(path.read_bytes())

    return {path.relative_to(folder).as_posix(): digest(path) for path in sorted(folder.rglob("*"))}


@pytest.fixture(name="digest_tree")
def _digest_tree() -> Callable[[Path], dict[str, str]]:
    return digest_tree


@pytest.fixture
def convert(tmp_path) -> Callable[..., Path]:
    """Convert a folder to the store of a name; returns the store."""

    def make(source, name="subj01.zarr", **options) -> Path:
        nsd_zarr.convert(source, tmp_path / name, **{"trials_per_shard": 2, "workers": 2} | options)
        return tmp_path / name

    return make


@pytest.fixture
def recorded_sessions() -> Callable[[Path], list[int]]:
    """Sessions with a record in the run of a store."""

    def read(store: Path) -> list[int]:
        run_folder = store.with_name(store.name + ".run")
        return sorted(json.loads(path.read_bytes())["session"] for path in run_folder.glob("session-*.json"))

    return read


@pytest.fixture
def interrupt(make_recorder, tmp_path) -> Callable[..., Path]:
    """Begin a conversion and stop it, as Ctrl-C does, at a trial; returns the unfinished store."""

    def stop():
        raise KeyboardInterrupt

    def make(source, name="subj01.zarr", at_trial=9, **options) -> Path:
        options = {"trials_per_shard": 2, "workers": 1} | options
        with pytest.raises(KeyboardInterrupt):
            nsd_zarr.convert(source, tmp_path / name, on_event=make_recorder(at_trial, stop), **options)
        return tmp_path / name

    return make


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


@pytest.fixture
def stop_at_rename(monkeypatch) -> Callable[[int], AbstractContextManager[None]]:
    """A block that is stopped by KeyboardInterrupt right before its rename *number*, counted from 1."""

    @contextmanager
    def stop_at(number) -> Iterator[None]:
        replace, calls = os.replace, []

        def stop(old, new):
            calls.append(new)
            if len(calls) == number:
                raise KeyboardInterrupt
            replace(old, new)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", stop)
            with pytest.raises(KeyboardInterrupt):
                yield

    return stop_at


# -- the command line --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def paragraph(self) -> str:
        """What was refused, without the progress lines before it; one paragraph, and nothing on stdout."""
        assert self.out == ""
        assert "Traceback" not in self.err
        assert "\n\n" not in self.err
        (paragraph,) = re.findall(r"^nsd-zarr: (.*)\Z", self.err.strip(), re.MULTILINE | re.DOTALL)
        return paragraph


@pytest.fixture
def run_cli(capsys) -> Callable[..., Outcome]:
    """Run one command line in this process."""

    def call(*words) -> Outcome:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def check_refused(run_cli, tmp_path) -> Callable[..., str]:
    """Run a command line that must be refused with *code*, and must write nothing; returns its paragraph."""

    def check(code, *words) -> str:
        before = digest_tree(tmp_path)
        outcome = run_cli(*words)
        assert outcome.code == code, outcome.err
        assert digest_tree(tmp_path) == before
        return outcome.paragraph

    return check


@pytest.fixture
def start_cli() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start one command line as a process of its own; killed when the test ends."""
    started = []

    def start(*words, before="", prefix=()) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-W", "error", "-c", f"{before}\n{CLI}", *map(str, words)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run_child(start_cli) -> Callable[..., Outcome]:
    """Run one command line as a process of its own."""

    def call(*words, **options) -> Outcome:
        process = start_cli(*words, **options)
        out, err = process.communicate(timeout=60)
        return Outcome(process.returncode, out, err)

    return call


@pytest.fixture
def without_privileges() -> list[str]:
    """What to put before a command so that file permissions hold for it, even where tests run as root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("runs as root, and there is no setpriv to drop its privileges")
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
