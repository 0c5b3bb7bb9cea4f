"""Any order of interruptions, losses, damage, runs and repairs, against the bytes that the store ought to have."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from builders import scale_examples
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import nsd_zarr
from nsd_zarr.conversion.events import SessionDone, TrialsDone
from nsd_zarr.errors import ResumeRefused, StoreError

SESSIONS, TRIALS, SHARDS = 3, 4, 2  # of two trials each
HOW = ["flip", "flip", "cut", "delete"]
OPTIONS = {"trials_per_shard": 2, "workers": 1}


class Conversion(RuleBasedStateMachine):
    """A store that is converted, interrupted, damaged and repaired.

    The model: `recorded` says which sessions the next run may leave alone, `expected` what a finished store holds.
    """

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(prefix="nsd-zarr-"))
        self.source, self.store = self.folder / "source", self.folder / "subj01.zarr"
        self.source.mkdir()
        for session in range(1, SESSIONS + 1):
            values = np.arange(TRIALS * 30, dtype="<i2").reshape(TRIALS, 2, 3, 5) + 1000 * session
            with h5py.File(self.source / f"betas_session{session:02d}.hdf5", "w", libver="earliest") as file:
                file.create_dataset("betas", data=values, chunks=(TRIALS, 1, 1, 1))
        nsd_zarr.convert(self.source, self.folder / "expected.zarr", **OPTIONS)
        self.expected = _read_tree(self.folder / "expected.zarr")
        self.recorded = dict.fromkeys(range(1, SESSIONS + 1), False)
        self.complete, self.has_run = False, True
        self.kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in self.source.iterdir()}
        self.changed = set()

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @property
    def left(self):
        return [session for session, recorded in self.recorded.items() if not recorded]

    @property
    def damaged(self):
        """Files of the finished store that are not as they were made."""
        found = _read_tree(self.store)
        return {key.as_posix() for key, data in self.expected.items() if found.get(key) != data}

    @property
    def is_sound(self):
        return not self.complete or not (self.damaged or self.changed)

    # -- runs ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.is_sound)
    @rule(at_trial=st.integers(1, SESSIONS * TRIALS))
    def interrupt(self, at_trial):
        count, left = [], self.left

        def stop(event):
            if isinstance(event, TrialsDone):
                count.append(event)
                if len(count) == at_trial:
                    raise KeyboardInterrupt

        if self.complete or at_trial > len(left) * TRIALS:
            self.finish()
            return
        with pytest.raises(KeyboardInterrupt):
            nsd_zarr.convert(self.source, self.store, on_event=stop, **OPTIONS)
        self.recorded |= dict.fromkeys(left[: (at_trial - 1) // TRIALS], True)

    @precondition(lambda self: self.is_sound)
    @rule()
    def finish(self):
        # Without the run beside it, a finished store is proved by reading its sources again.
        again = [] if self.run_knows_sources else sorted(self.recorded)
        done = []
        nsd_zarr.convert(
            self.source,
            self.store,
            on_event=lambda event: done.append(event.session) if isinstance(event, SessionDone) else None,
            **OPTIONS,
        )
        assert sorted(done) == (again if self.complete else self.left)
        assert _read_tree(self.store) == self.expected
        if not self.complete:
            self.has_run = True
        self.recorded, self.complete = dict.fromkeys(self.recorded, True), True

    @property
    def run_knows_sources(self):
        return (self.folder / "subj01.zarr.run/run.json").exists()

    @rule()
    def verify(self):
        if not self.complete:
            with pytest.raises(StoreError):
                nsd_zarr.verify(self.store)
        elif self.damaged or self.changed:
            self.check_damage_is_reported()
        else:
            assert nsd_zarr.verify(self.store, self.source).is_whole

    def check_damage_is_reported(self):
        damaged = self.damaged
        try:
            report = nsd_zarr.verify(self.store)
        except StoreError:
            # Nothing is left that tells a store of ours.
            assert "zarr.json" in damaged
            assert {"trial_digest/zarr.json", "trial_digest/c/0"} <= damaged
        else:
            assert {damage.path for damage in report.damages} == ({"zarr.json"} & damaged or damaged)

    @precondition(lambda self: self.complete)
    @rule()
    def repair(self):
        before, damaged = _read_tree(self.store), self.damaged
        needed = {int(key.split("/")[2]) // SHARDS + 1 for key in damaged if key.startswith("betas/c/")}
        blind = not self.has_run and "zarr.json" in damaged
        if blind or ("trial_digest/c/0" in damaged and not self.has_run):
            needed |= set(self.recorded)
        try:
            report = nsd_zarr.repair(self.store, self.source)
        except ResumeRefused:
            assert needed & self.changed
            assert _read_tree(self.store) == before
        except StoreError:
            # Of the root document, the run and the metadata of betas, too little is left.
            assert "zarr.json" in damaged
            assert len(damaged) > 1
            assert _read_tree(self.store) == before
        else:
            assert not needed & self.changed
            assert set(report.rewritten) == damaged or (blind and set(report.rewritten) > damaged)
            assert _read_tree(self.store) == self.expected
            self.has_run |= blind

    # -- losses --------------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.complete and self.store.exists())
    @rule(shard=st.integers(0, SESSIONS * SHARDS - 1), cut=st.booleans())
    def lose_a_shard(self, shard, cut):
        path = self.store / f"betas/c/{shard}/0/0/0"
        if path.exists():
            path.write_bytes(path.read_bytes()[:-3]) if cut else path.unlink()
            self.recorded[shard // SHARDS + 1] = False

    @precondition(lambda self: not self.complete)
    @rule(session=st.integers(1, SESSIONS), keep=st.integers(0, 200))
    def lose_a_record(self, session, keep):
        path = self.folder / f"subj01.zarr.run/session-{session:02d}.json"
        if path.exists():
            path.write_bytes(path.read_bytes()[:keep])
            self.recorded[session] = False

    @precondition(lambda self: not self.complete)
    @rule()
    def lose_the_run(self):
        shutil.rmtree(self.folder / "subj01.zarr.run", ignore_errors=True)
        self.recorded = dict.fromkeys(self.recorded, False)

    @precondition(lambda self: self.complete)
    @rule(file=st.integers(0, 99), position=st.integers(0, 10_000), bit=st.integers(0, 7), how=st.sampled_from(HOW))
    def damage_what_is_finished(self, file, position, bit, how):
        path = self.store / sorted(self.expected)[file % len(self.expected)]
        data = path.read_bytes() if path.exists() else b""
        if how == "delete" or not data:
            path.unlink(missing_ok=True)
            return
        position %= len(data)
        end = data[position + 1 :] if how == "flip" else b""
        path.write_bytes(data[:position] + (bytes([data[position] ^ 1 << bit]) if how == "flip" else b"") + end)

    @precondition(lambda self: self.complete)
    @rule(first=st.integers(0, SESSIONS * SHARDS - 1), second=st.integers(0, SESSIONS * SHARDS - 1))
    def swap_shards_of_what_is_finished(self, first, second):
        paths = [self.store / f"betas/c/{shard}/0/0/0" for shard in (first, second)]
        if all(path.exists() for path in paths):
            contents = [path.read_bytes() for path in paths]
            for path, data in zip(paths, reversed(contents), strict=True):
                path.write_bytes(data)

    @precondition(lambda self: self.complete)
    @rule()
    def lose_the_run_of_what_is_finished(self):
        shutil.rmtree(self.folder / "subj01.zarr.run", ignore_errors=True)
        self.has_run = False

    @precondition(lambda self: self.complete)
    @rule(session=st.integers(1, SESSIONS))
    def replace_a_source(self, session):
        with h5py.File(self.source / f"betas_session{session:02d}.hdf5", "r+") as file:
            file["betas"][...] += 7
        self.changed.add(session)

    @rule()
    def put_the_sources_back(self):
        for path, (data, time) in self.kept.items():
            path.write_bytes(data)
            os.utime(path, ns=(time, time))
        self.changed = set()

    @precondition(lambda self: self.complete)
    @rule()
    def start_over(self):
        self.put_the_sources_back()
        shutil.rmtree(self.store)
        self.recorded, self.complete = dict.fromkeys(self.recorded, False), False

    @precondition(lambda self: not self.complete and self.store.exists())
    @rule()
    def leave_partial_files(self):
        (self.store / "betas.0.partial").write_bytes(b"left over")


def _read_tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_conversions_interrupted_and_damaged_in_any_order_end_as_an_undisturbed_one():
    # Not shrunk: what depends on the order of threads fails now and then, and would be tried for minutes.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    examples = scale_examples(20, at_least=8)
    options = settings(max_examples=examples, stateful_step_count=14, deadline=None, print_blob=True, phases=phases)
    run_state_machine_as_test(Conversion, settings=options)
