from io import StringIO

import numpy as np
import pandas as pd
import pytest

from nsd_zarr.layout import runs_of
from nsd_zarr.nsd import RESPONSE_COLUMNS
from nsd_zarr.simulate import make_73k_ids, make_trial_table
from nsd_zarr.simulate.trial_table import write_trial_table

DOCUMENTED = (
    "SUBJECT SESSION RUN TRIAL 73KID 10KID TIME ISOLD ISCORRECT RT CHANGEMIND MEMORYRECENT MEMORYFIRST ISOLDCURRENT "
    "ISCORRECTCURRENT TOTAL1 TOTAL2 BUTTON MISSINGDATA"
)
SIZES = [(3, 750), (3, 53), (2, 13), (2, 6), (1, 2)]


def make_frame(sessions, trials, **options):
    return pd.DataFrame(make_trial_table(sessions, trials, **options))


@pytest.fixture(params=SIZES, ids=str)
def frame(request):
    return make_frame(*request.param)


def test_columns_stand_in_the_documented_order(frame):
    assert list(frame.columns) == list(RESPONSE_COLUMNS) == DOCUMENTED.split()


def test_schedule_counts_from_one_and_time_only_grows(frame):
    sessions = int(frame.SESSION.max())
    trials = len(frame) // sessions
    assert frame.SESSION.tolist() == [session for session in range(1, sessions + 1) for _ in range(trials)]
    for _, session in frame.groupby("SESSION"):
        expected = [length for length in runs_of(trials) if length]
        assert session.groupby("RUN").size().tolist() == expected
        assert (session.groupby("RUN").cumcount() + 1 == session.TRIAL).all()
    assert (frame.TIME.diff().dropna() > 0).all()
    assert (frame.TIME // 1 == 7 * (frame.SESSION - 1)).all()


def test_session_of_750_trials_has_twelve_runs_of_63_and_62():
    assert make_frame(1, 750).groupby("RUN").size().tolist() == [63, 62] * 6


def test_ids_agree_and_follow_the_subject():
    frame = make_frame(2, 53, subject=3)
    assert (frame.SUBJECT == 3).all()
    assert np.array_equal(frame["73KID"], make_73k_ids(frame["10KID"].to_numpy(int), 3))


def test_isold_and_memory_follow_from_the_images_shown(frame):
    position = pd.Series(np.arange(len(frame)))
    showings = position.groupby(frame["10KID"])
    assert (frame.duplicated("10KID") == frame.ISOLD).all()
    assert (frame.duplicated(["10KID", "SESSION"]) == frame.ISOLDCURRENT).all()
    for column, back in (("MEMORYRECENT", 1), ("MEMORYFIRST", 2)):
        pd.testing.assert_series_equal(frame[column], position - showings.shift(back) - 1, check_names=False)


def test_presses_agree_with_each_other(frame):
    pressed = frame.BUTTON.notna()
    for column in ("ISCORRECT", "ISCORRECTCURRENT", "RT", "CHANGEMIND"):
        assert (frame[column].notna() == pressed).all(), column
    answer = frame[pressed]
    assert set(answer.BUTTON) <= {1, 2}
    assert (((answer.BUTTON == 2) == answer.ISOLD) == answer.ISCORRECT).all()
    assert (((answer.BUTTON == 2) == answer.ISOLDCURRENT) == answer.ISCORRECTCURRENT).all()
    assert ((answer.TOTAL1 + answer.TOTAL2 > 1) == answer.CHANGEMIND).all()
    assert (np.where(answer.BUTTON == 1, answer.TOTAL1, answer.TOTAL2) >= 1).all()
    assert answer.RT.between(200, 4000).all()


def test_trials_without_presses_have_no_totals_only_where_data_are_missing(frame):
    missing = frame.MISSINGDATA == 1
    assert (frame.TOTAL1.isna() == missing).all()
    assert (frame.TOTAL2.isna() == missing).all()
    silent = frame.BUTTON.isna() & ~missing
    assert (frame[silent][["TOTAL1", "TOTAL2"]] == 0).all(axis=None)
    assert frame[missing].BUTTON.isna().all()


def test_three_sessions_hold_everything_that_can_occur():
    frame = make_frame(3, 750)
    across = (frame.ISOLD == 1) & (frame.ISOLDCURRENT == 0)
    assert across.sum() > 200
    assert (frame.ISOLDCURRENT == 1).sum() > 200
    assert frame.MEMORYFIRST.notna().sum() > 400
    lost = frame[frame.MISSINGDATA == 1]
    assert lost.groupby(["SESSION", "RUN"]).ngroups == 1
    assert 10 < (frame.BUTTON.isna() & (frame.MISSINGDATA == 0)).sum() < 120
    assert 10 < (frame.CHANGEMIND == 1).sum() < 200
    assert 0.6 < frame.ISCORRECT.mean() < 0.95


def test_table_follows_the_seed():
    assert make_frame(2, 13, seed=1).equals(make_frame(2, 13, seed=1))
    assert not make_frame(2, 13, seed=1).equals(make_frame(2, 13, seed=2))


def test_written_table_reads_back_equal(tmp_path):
    table = make_trial_table(2, 53)
    path = tmp_path / "responses.tsv"
    write_trial_table(path, table)
    text = path.read_text()
    assert text.splitlines()[0] == DOCUMENTED.replace(" ", "\t")
    assert "\tNaN\t" in text
    assert ".0\t" not in text
    read = pd.read_csv(StringIO(text), sep="\t", dtype=float)
    pd.testing.assert_frame_equal(read, pd.DataFrame(table), rtol=1e-12)
