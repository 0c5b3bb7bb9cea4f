import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root

tensorstore = pytest.importorskip("tensorstore")


def open_array(store, name):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store.path}/{name}/"}}
    return tensorstore.open(spec, read=True, open=True).result()


@pytest.fixture(params=["volumes", "surfaces", "floats", "every_code"])
def store(request):
    return request.getfixturevalue(request.param)


def test_tensorstore_reads_betas_to_the_stored_values(store):
    betas = open_array(store, "betas")
    assert betas.dtype.numpy_dtype == store.stored.dtype
    assert betas.domain.labels[0] == "trial"
    assert np.array_equal(betas.read().result(), store.stored, equal_nan=True)
    assert np.array_equal(betas[5].read().result(), store.stored[5], equal_nan=True)
    assert np.array_equal(betas[[13, 4]].read().result(), store.stored[[13, 4]], equal_nan=True)


def test_tensorstore_reads_the_coordinates(store):
    places = np.array([store.locate(trial) for trial in range(store.trials)])
    assert np.array_equal(open_array(store, "session").read().result(), places[:, 0])
    assert np.array_equal(open_array(store, "trial_in_session").read().result(), places[:, 1])
    assert open_array(store, "session_number").read().result().tolist() == list(store.sessions)


def test_tensorstore_reads_the_statistics(store):
    ours = nsd_zarr.open_dataset(store.path)
    for name in ("session_mean", "session_std"):
        array = open_array(store, name)
        assert array.domain.labels[0] == "session_number"
        assert np.array_equal(array.read().result(), ours[name].values, equal_nan=True)


def test_tensorstore_refuses_the_digests_for_being_text(volumes):
    with pytest.raises(ValueError, match="string data type is not one of the supported data types"):
        open_array(volumes, "trial_digest")


def test_tensorstore_reads_every_array_of_an_experiment(tmp_path):
    simulate_root(tmp_path / "nsd", Simulation(2, (13, 5, 11, 7)))
    nsd_zarr.convert(tmp_path / "nsd", tmp_path / "subj01.zarr")
    ours = nsd_zarr.open_dataset(tmp_path / "subj01.zarr", raw=True)
    assert {"brainmask", "valid", "ncsnr", "roi_streams", "affine", "nsd_id", "shared1000", "rt"} <= set(ours.variables)
    # z, y and x are made of the affine, store of the root document.
    for name in set(ours.variables) - {"store", "z", "y", "x"}:
        path = f"{tmp_path}/subj01.zarr/{name}/"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        found = tensorstore.open(spec, read=True, open=True).result().read().result()
        assert found.dtype == ours[name].dtype
        np.testing.assert_array_equal(found, ours[name].values)
