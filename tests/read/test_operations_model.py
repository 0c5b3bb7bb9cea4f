"""Random walks of xarray operations: afterwards ds.nsd is right or refuses. The oracle is NumPy, trial by trial."""

import pickle
import tempfile

import numpy as np
import pytest
import xarray as xr
from builders import make_shuffled_values, scale_examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nsd_zarr
from nsd_zarr.errors import NsdZarrError


def save(ds):
    with tempfile.TemporaryDirectory() as folder:
        ds.to_zarr(f"{folder}/x.zarr", consolidated=False)
        return xr.open_dataset(f"{folder}/x.zarr", consolidated=False).load()


def join(ds, other, new):
    with xr.set_options(use_new_combine_kwarg_defaults=new):
        return xr.concat([ds, other], "trial")


SELECTIONS = {
    "every second trial": lambda ds, two: ds.isel(trial=slice(None, None, 2)),
    "backwards": lambda ds, two: ds.isel(trial=slice(None, None, -1)),
    "a box": lambda ds, two: ds.isel(y=slice(1, None)),
    "session 3": lambda ds, two: ds.sel(trial=ds.session == 3) if (ds.session == 3).any() else ds,
    "where session": lambda ds, two: ds.where(ds.session != 2, drop=True) if (ds.session != 2).any() else ds,
    "group": lambda ds, two: next(iter(ds.groupby("session")))[1],
    "halves joined": lambda ds, two: join(ds.isel(trial=slice(0, 1)), ds.isel(trial=slice(1, None)), False),
    "joined by new defaults": lambda ds, two: join(ds.isel(trial=slice(2, None)), ds.isel(trial=slice(0, 2)), True),
    "loaded": lambda ds, two: ds.load(),
    "copied": lambda ds, two: ds.copy(deep=True),
    "pickled": lambda ds, two: pickle.loads(pickle.dumps(ds)),
    "saved": lambda ds, two: save(ds),
    "transposed": lambda ds, two: ds.transpose("y", "trial", "z", ...),
}
CHANGES = {
    "abs": lambda ds, two: abs(ds),
    "times 2": lambda ds, two: ds * 2,
    "clip": lambda ds, two: ds.clip(-9, 9),
    "shift": lambda ds, two: ds.shift(trial=1),
    "where ncsnr": lambda ds, two: ds.where(ds.ncsnr > 0),
    "other store": lambda ds, two: join(ds, two.isel(y=slice(11 - ds.sizes["y"], None)), False),
    "coarsen": lambda ds, two: ds.coarsen(y=2, boundary="trim").mean(),
}


@pytest.fixture(scope="module")
def other(make_store, make_experiment):
    return make_experiment(make_store(-make_shuffled_values(42, (5, 11, 3))))


def score(made):
    sessions = made.percent.astype(np.float64).reshape(3, 14, 5, 11, 3)
    varies = (sessions.max(1) != sessions.min(1)) & made.arrays["valid"].astype(bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        scored = (sessions - sessions.mean(1, keepdims=True)) / sessions.std(1, keepdims=True)
    return np.where(varies[:, np.newaxis], scored, np.nan).reshape(42, 5, 11, 3), ~varies


def find_trials(ds):
    """Where in the store each trial is."""
    return np.searchsorted([2, 3, 5], ds.session.values) * 14 + ds.trial_in_session.values


def ask(question):
    """The answer; None where it is refused. Any other error is a failure."""
    try:
        return question()
    except NsdZarrError:
        return None


def check_regions(ds, made):
    """The voxels by their coordinates are those of the file, and betas are those at the voxels."""
    found = ask(lambda: ds.nsd.roi("nsdgeneral"))
    if found is None:
        return
    at = tuple(found[axis].values for axis in "zyx")
    inside = np.zeros((5, 11, 3), bool)
    inside[np.ix_(*(ds[axis].values for axis in "zyx"))] = True
    expected = np.argwhere((made.arrays["roi_nsdgeneral"] > 0) & inside)
    assert sorted(zip(*(place.tolist() for place in at), strict=True)) == sorted(map(tuple, expected.tolist()))
    given_betas = ds.betas.sel({axis: xr.DataArray(at[place], dims="voxel") for place, axis in enumerate("zyx")})
    np.testing.assert_array_equal(found.betas.values, given_betas.transpose("trial", "voxel").values)


def check_scores(ds, made):
    scores, missing = score(made)
    at = np.ix_(*(ds[axis].values for axis in "zyx"))
    found = ask(lambda: ds.nsd.zscore().betas.transpose("trial", "z", "y", "x").values)
    if found is not None:
        kept = ~np.isnan(ds.betas.transpose("trial", "z", "y", "x").values)
        expected = np.array([scores[trial][at] for trial in find_trials(ds)])
        np.testing.assert_allclose(found[kept], expected[kept], atol=4e-6)
        assert np.isnan(found[~kept]).all()
    lacking = ask(lambda: ds.nsd.missing.transpose("session_number", "z", "y", "x").values)
    if lacking is not None:
        assert np.array_equal(lacking, np.array([each[at] for each in missing]))


@settings(max_examples=scale_examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.sampled_from(sorted(SELECTIONS)), max_size=4),
    change=st.none() | st.sampled_from(sorted(CHANGES)),
    after=st.lists(st.sampled_from(sorted(SELECTIONS)), max_size=2),
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_after_any_operations_the_accessor_is_right_or_refuses(experiment, other, before, change, after):
    ds, two = (nsd_zarr.open_dataset(made.path) for made in (experiment, other))
    for name in before:
        ds = SELECTIONS[name](ds, two) if ds.sizes["trial"] > 2 and ds.sizes["y"] > 2 else ds
    if change is None:
        expected = np.array([experiment.percent[trial] for trial in find_trials(ds)])
        at = np.ix_(np.arange(len(expected)), *(ds[axis].values for axis in "zyx"))
        np.testing.assert_array_equal(ds.betas.transpose("trial", "z", "y", "x").values, expected[at])
    else:
        ds = CHANGES[change](ds, two)
    for name in after if change != "coarsen" else ():
        ds = SELECTIONS[name](ds, two) if ds.sizes["trial"] > 2 and ds.sizes["y"] > 2 else ds
    if change == "coarsen":
        assert ask(lambda: ds.nsd.roi("nsdgeneral")) is None
        assert ask(lambda: ds.nsd.zscore()) is None
        return
    check_regions(ds, experiment)
    check_scores(ds, experiment)
