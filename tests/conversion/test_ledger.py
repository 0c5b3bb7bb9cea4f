"""The ledger: what is written comes back, or nothing does."""

from __future__ import annotations

import pytest

from nsd_zarr.conversion.ledger import Ledger, SessionRecord, make_run_folder
from nsd_zarr.source.identity import FileIdentity
from nsd_zarr.store.record import FileRecord, ShardRecord

IDENTITY = FileIdentity("betas_session07.hdf5", 36_792, 1_795_367_149_081_128_225)
RECORD = SessionRecord(
    7,
    "5e77" * 8,
    IDENTITY,
    (
        ShardRecord("betas/c/0/0", 669, "a1" * 16, ("b2" * 16, "c3" * 16), tail="e5" * 16),
        ShardRecord("betas/c/1/0", 7, "d4" * 16, (), tail="f6" * 16),
    ),
    (FileRecord("session_mean/c/0/0", 41, "e5" * 16),),
    3,
)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "subj01.zarr")
    ledger.begin({7: IDENTITY})
    return ledger


def test_record_comes_back_as_it_was_written(ledger):
    assert ledger.read_session(7) is None
    ledger.write_session(RECORD)
    assert ledger.read_session(7) == RECORD
    assert RECORD.trial_digests == ("b2" * 16, "c3" * 16)


def test_record_with_any_byte_changed_is_no_record(ledger):
    ledger.write_session(RECORD)
    path = ledger.folder / "session-07.json"
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in (0, 5):
            path.write_bytes(data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :])
            assert ledger.read_session(7) in (None, RECORD)
    for length in range(len(data) - 3):
        path.write_bytes(data[:length])
        assert ledger.read_session(7) is None


def test_record_of_another_session_is_no_record(ledger):
    ledger.write_session(RECORD)
    (ledger.folder / "session-07.json").rename(ledger.folder / "session-08.json")
    assert ledger.read_session(8) is None


def test_sources_come_back_and_can_be_brought_up_to_date(ledger):
    other = FileIdentity("betas_session08.hdf5", 1, 2)
    ledger.update_sources({8: other})
    assert ledger.read_sources() == {7: IDENTITY, 8: other}


def test_beginning_forgets_earlier_sessions_and_faults(ledger):
    ledger.write_session(RECORD)
    ledger.note_fault(8, "cut short")
    ledger.begin({7: IDENTITY})
    assert ledger.read_session(7) is None
    assert not ledger.had_fault(8)


def test_fault_is_remembered_until_the_session_is_written(ledger):
    ledger.note_fault(7, "cut short")
    assert Ledger(ledger.folder.with_name("subj01.zarr")).had_fault(7)
    ledger.write_session(RECORD)
    assert not ledger.had_fault(7)


def test_run_that_was_never_begun_knows_nothing(tmp_path):
    ledger = Ledger(tmp_path / "other.zarr")
    assert not ledger.exists()
    assert ledger.read_sources() == {}
    assert make_run_folder(tmp_path / "other.zarr") == tmp_path / "other.zarr.run"
    assert list(tmp_path.iterdir()) == []
