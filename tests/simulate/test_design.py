import io

import numpy as np
import pandas as pd
import pytest
from scipy.io import loadmat

from nsd_zarr.simulate import make_expdesign, make_trial_table
from nsd_zarr.simulate.design import format_expdesign, format_stim_info

SIZES = [(3, 53), (2, 13), (1, 750)]


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param


def test_variables_have_the_datasets_shapes(size):
    shapes = {name: values.shape for name, values in make_expdesign(*size).items()}
    assert shapes == {
        "masterordering": (1, 30_000),
        "subjectim": (8, 10_000),
        "sharedix": (1, 1000),
        "basiccnt": (3, 40),
        "stimpattern": (40, 12, 75),
    }


def test_variables_read_back_through_scipy_equal(size):
    read = loadmat(io.BytesIO(format_expdesign(*size)))
    for name, values in make_expdesign(*size).items():
        assert np.array_equal(read[name], values)


@pytest.mark.parametrize("subject", [1, 5])
def test_trial_table_follows_the_design(size, subject):
    frame, design = pd.DataFrame(make_trial_table(*size, subject=subject)), make_expdesign(*size)
    ordering = design["masterordering"][0, : len(frame)]
    assert np.array_equal(frame["10KID"], ordering)
    assert np.array_equal(frame["73KID"], design["subjectim"][subject - 1, ordering.astype(int) - 1])
    shared = frame["10KID"] <= 1000
    assert (frame["73KID"].isin(design["sharedix"][0]) == shared).all()


def test_counts_are_of_distinct_images_and_add_up_to_the_trials_of_each_session():
    design = make_expdesign(3, 53)
    ids = pd.Series(design["masterordering"][0, : 53 * 40]).astype(int)
    for session, images in ids.groupby(np.arange(53 * 40) // 53):
        times = images.value_counts().value_counts()
        assert [times.get(k, 0) for k in (1, 2, 3)] == design["basiccnt"][:, session].tolist()
    assert np.array_equal(np.array([1, 2, 3]) @ design["basiccnt"], [53] * 40)
    whole = make_expdesign(40, 750)
    assert (np.array([1, 2, 3]) @ whole["basiccnt"]).sum() == whole["stimpattern"].sum() == 30_000
    assert np.array_equal(whole["stimpattern"].sum(axis=2), np.tile([63, 62], (40, 6)))


@pytest.mark.parametrize("subject", [1, 8])
def test_stimulus_table_tells_the_trials_of_the_trial_table(size, subject):
    info = pd.read_csv(io.BytesIO(format_stim_info(*size)), index_col=0)
    assert info.shape == (73_000, 40)
    assert np.array_equal(info.nsdId, np.arange(73_000))
    frame = pd.DataFrame(make_trial_table(*size, subject=subject))
    repeat = frame.groupby("73KID").cumcount()
    for row, (nsd_id, showing) in enumerate(zip(frame["73KID"].astype(int) - 1, repeat, strict=True)):
        assert info.loc[nsd_id, f"subject{subject}_rep{showing}"] == row + 1
    assert info[f"subject{subject}"].sum() == 10_000
    assert info.shared1000.sum() == 1000
    assert (info[info.shared1000][[f"subject{number}" for number in range(1, 9)]] == 1).all(axis=None)
    assert (info.iloc[:, 8:16].sum(axis=1) == np.where(info.shared1000, 8, 1)).all()
