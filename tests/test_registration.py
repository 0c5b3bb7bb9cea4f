"""`ds.nsd` is there whatever is imported first, in worker processes too, and importing the package imports nothing."""

import pickle
import subprocess
import sys

import pytest

import nsd_zarr

MAKE = "xarray.Dataset({'betas': (('trial', 'z'), [[1.0]])}).nsd.split"
ORDERS = {
    "ours first": f"import nsd_zarr; import xarray; {MAKE}",
    "xarray first": f"import xarray; import nsd_zarr; {MAKE}",
    "ours first, xarray's part first": f"import nsd_zarr; import xarray.backends; {MAKE}",
    "ours twice": f"import nsd_zarr; import xarray; import importlib; importlib.reload(nsd_zarr); {MAKE}",
    "engine first": f"import nsd_zarr.read.backend; import xarray; {MAKE}",
}


def run(code, *words):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("order", ORDERS)
def test_accessor_is_there_in_any_order_of_imports(order):
    run(ORDERS[order])


def test_accessor_is_imported_when_it_is_asked_for():
    code = "import xarray, sys; import nsd_zarr; print('nsd_zarr.read.accessor' in sys.modules)"
    assert run(code) == "False\n"


def test_xarray_is_imported_as_without_us_and_the_finder_leaves():
    code = (
        "import sys, nsd_zarr, xarray, importlib.resources as r; print('xarray' in sys.modules, "
        "[f for f in sys.meta_path if 'nsd_zarr' in type(f).__module__], "
        "'exec_module' in vars(xarray.__spec__.loader), r.files('xarray').joinpath('static').is_dir())"
    )
    assert run(code) == "True [] False True\n"


def test_missing_xarray_is_said_by_python_itself():
    code = (
        "import sys, nsd_zarr; sys.path[:] = []; sys.path_importer_cache.clear()\n"
        "sys.meta_path[1:] = []\n"
        "try:\n    import xarray\nexcept ModuleNotFoundError as error:\n    print(error.name)"
    )
    assert run(code) == "xarray\n"


@pytest.mark.parametrize("what", ["ds", "ds.betas", "ds.ncsnr"])
def test_unpickling_anything_of_ours_registers_the_accessor(experiment, tmp_path, what):
    ds = nsd_zarr.open_dataset(experiment.path)
    (tmp_path / "pickle").write_bytes(pickle.dumps({"ds": ds, "ds.betas": ds.betas, "ds.ncsnr": ds.ncsnr}[what]))
    code = (
        "import pickle, sys, xarray; found = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(hasattr(xarray.Dataset, 'nsd'))"
    )
    assert run(code, tmp_path / "pickle") == "True\n"
