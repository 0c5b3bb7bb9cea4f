"""Every method of ds.nsd: there after opening in any way, documented, and its example runs."""

import doctest
import inspect
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr

import nsd_zarr
from nsd_zarr.read import accessor

NEEDS = {"plot": "matplotlib", "to_rsatoolbox": "rsatoolbox"}
"""Methods that need an optional library."""
METHODS = [name for name in dir(accessor.NsdAccessor) if not name.startswith("_")]


def test_accessor_has_the_face_that_is_promised():
    assert METHODS == [
        "average_repeats",
        "compute_ncsnr",
        "count_showings",
        "missing",
        "noise_ceiling",
        "plot",
        "roi",
        "rois",
        "split",
        "to_nifti",
        "to_nilearn",
        "to_rsatoolbox",
        "to_volume",
        "to_xy",
        "trials",
        "zscore",
    ]


@pytest.mark.parametrize("opening", ["xarray.open_dataset(path)", "__import__('nsd_zarr').open_dataset(path)"])
def test_accessor_is_there_after_opening(experiment, opening):
    code = f"import sys, xarray; path = sys.argv[1]; print({opening}.nsd.roi('V2d').sizes['voxel'] > 0)"
    done = subprocess.run([sys.executable, "-c", code, experiment.path], capture_output=True, text=True, timeout=100)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("name", METHODS)
def test_method_tells_what_it_does_by_an_example_that_runs(experiment, name, tmp_path, monkeypatch):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    method = getattr(accessor.NsdAccessor, name)
    assert ">>>" in inspect.getdoc(method)
    monkeypatch.chdir(tmp_path)
    names = {"ds": nsd_zarr.open_dataset(experiment.path), "xr": xr}
    found = doctest.DocTestFinder(recurse=False).find(method, name, globs=names)
    runner = doctest.DocTestRunner()
    results = [runner.run(test) for test in found]
    assert sum(result.attempted for result in results) > 0
    assert sum(result.failed for result in results) == 0


def test_example_of_the_class_runs(experiment):
    names = {"ds": nsd_zarr.open_dataset(experiment.path)}
    (test,) = doctest.DocTestFinder(recurse=False).find(accessor.NsdAccessor, "nsd", globs=names)
    result = doctest.DocTestRunner().run(test)
    assert result.attempted > 0 == result.failed


def test_voxel_indices_are_coordinates_where_the_store_has_an_affine(experiment, volumes):
    ds = nsd_zarr.open_dataset(experiment.path)
    assert [ds[axis].size for axis in "zyx"] == [5, 11, 3]
    assert set(ds.coords) == {
        *("session", "trial_in_session", "session_number", "z", "y", "x", "store"),
        *experiment.arrays,
        "rail_count",
    }
    assert "z" not in nsd_zarr.open_dataset(volumes.path).coords
    assert "y" not in nsd_zarr.open_dataset(experiment.path, drop_variables="y").coords


def test_experiment_opens_the_same_through_open_zarr(experiment):
    ours = nsd_zarr.open_dataset(experiment.path)
    theirs = xr.open_zarr(experiment.path, chunks=None)
    for name in experiment.arrays:
        assert ours[name].dims == theirs[name].dims
        assert ours[name].variable.equals(theirs[name].variable)


@pytest.fixture
def other_layout(experiment, tmp_path):
    """The same arrays in a Zarr group of another layout, which zarr-python reads."""
    group = zarr.create_group(tmp_path / "other.zarr")
    theirs = zarr.open_group(experiment.path, mode="r")
    group.attrs.update({"Conventions": "CF-1.11"})
    for name in set(theirs.array_keys()) - {"trial_digest"}:
        values = theirs[name][...]
        chunks = tuple(-(-length // 2) for length in values.shape)
        dims = theirs[name].metadata.dimension_names
        made = group.create_array(name, data=values, chunks=chunks, dimension_names=dims)
        made.attrs.update(dict(theirs[name].attrs))
    return tmp_path / "other.zarr"


def test_store_of_another_layout_is_read_by_meaning_as_well(experiment, other_layout):
    ours, other = (
        nsd_zarr.open_dataset(path).nsd.roi("nsdgeneral").nsd.zscore().nsd.average_repeats()
        for path in (experiment.path, other_layout)
    )
    assert np.array_equal(ours.betas.values, other.betas.values, equal_nan=True)
    for name in ("ncsnr", "session_mean", "session_std", "valid", "roi_prf-visualrois"):
        may_be_nan = name == "ncsnr"
        assert np.array_equal(ours[name].values, other[name].values, equal_nan=may_be_nan)
        part, other_part = ours[name][..., [3, 1]], other[name][..., [3, 1]]
        assert np.array_equal(part.values, other_part.values, equal_nan=may_be_nan)
    leak_free = {"trials": np.arange(42) % 3 > 0}
    ours, other = (
        nsd_zarr.open_dataset(path).nsd.zscore(**leak_free).nsd.compute_ncsnr()
        for path in (experiment.path, other_layout)
    )
    assert np.array_equal(ours.values, other.values, equal_nan=True)
