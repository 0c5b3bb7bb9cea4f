"""Any order of interruptions, losses and runs, against a dictionary of which sessions are recorded."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import nsd_zarr
from nsd_zarr.conversion.events import SessionDone, TrialsDone

SESSIONS, TRIALS, SHARDS = 3, 4, 2  # of two trials each
OPTIONS = {"trials_per_shard": 2, "workers": 1}


class Conversion(RuleBasedStateMachine):
    """A store that is converted, interrupted and damaged; `recorded` says what the next run may leave alone."""

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
        self.complete = False

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    @property
    def left(self):
        return [session for session, recorded in self.recorded.items() if not recorded]

    # -- runs ----------------------------------------------------------------------------------------------------

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

    @rule()
    def finish(self):
        done = []
        nsd_zarr.convert(
            self.source,
            self.store,
            on_event=lambda event: done.append(event.session) if isinstance(event, SessionDone) else None,
            **OPTIONS,
        )
        assert sorted(done) == ([] if self.complete else self.left)
        assert _read_tree(self.store) == self.expected
        self.recorded, self.complete = dict.fromkeys(self.recorded, True), True

    @rule()
    def verify(self):
        if self.complete:
            assert nsd_zarr.verify(self.store, self.source).is_whole
            return
        with pytest.raises(nsd_zarr.errors.StoreError):
            nsd_zarr.verify(self.store)

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
    @rule(shard=st.integers(0, SESSIONS * SHARDS - 1), position=st.integers(0, 60))
    def damage_what_is_finished(self, shard, position):
        path = self.store / f"betas/c/{shard}/0/0/0"
        data = path.read_bytes()
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        assert {damage.session for damage in nsd_zarr.verify(self.store).damages} == {shard // SHARDS + 1}
        path.write_bytes(data)

    @precondition(lambda self: self.complete)
    @rule()
    def start_over(self):
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
    options = settings(max_examples=12, stateful_step_count=10, deadline=None, print_blob=True, phases=phases)
    run_state_machine_as_test(Conversion, settings=options)
