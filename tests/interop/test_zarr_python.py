import numpy as np
import pytest
import xarray as xr
import xxhash
import zarr

import nsd_zarr
from nsd_zarr.errors import DamageFound

PIPELINES = ["BatchedCodecPipeline", "FusedCodecPipeline"]


@pytest.fixture(params=PIPELINES)
def pipeline(request):
    if not hasattr(zarr.core.codec_pipeline, request.param):
        pytest.skip(f"zarr {zarr.__version__} has no {request.param}")
    with zarr.config.set({"codec_pipeline.path": f"zarr.core.codec_pipeline.{request.param}"}):
        yield request.param


@pytest.fixture(params=["volumes", "surfaces", "floats", "every_code"])
def store(request):
    return request.getfixturevalue(request.param)


def test_zarr_reads_every_array_to_its_values(store, pipeline):
    group = zarr.open_group(store.path, mode="r")
    statistics = {"session_mean", "session_std"} | ({"rail_count"} if store.stored.dtype == "i2" else set())
    coordinates = {"session", "session_number", "trial_digest", "trial_in_session"}
    assert set(group.array_keys()) == {"betas"} | coordinates | statistics
    betas = group["betas"]
    assert type(betas.async_array.codec_pipeline).__name__ == pipeline
    assert betas.dtype == store.stored.dtype
    assert np.array_equal(betas[...], store.stored, equal_nan=True)
    assert np.array_equal(betas[5], store.stored[5], equal_nan=True)
    assert np.array_equal(betas.oindex[[13, 4]], store.stored[[13, 4]], equal_nan=True)
    places = np.array([store.locate(trial) for trial in range(store.trials)])
    assert np.array_equal(group["session"][:], places[:, 0])
    assert np.array_equal(group["trial_in_session"][:], places[:, 1])
    assert group["session_number"][:].tolist() == list(store.sessions)
    percent = store.stored.astype("f8") / (300 if store.stored.dtype.kind == "i" else 1)
    sessions = percent.reshape(len(store.sessions), -1, *percent.shape[1:])
    with np.errstate(invalid="ignore"):
        for name, expected in (("session_mean", sessions.mean(axis=1)), ("session_std", sessions.std(axis=1))):
            assert group[name].chunks == (1, *percent.shape[1:])
            finite = np.isfinite(expected)
            np.testing.assert_allclose(group[name][...][finite], expected[finite], rtol=1e-5, atol=1e-6)
            assert not np.isfinite(group[name][...][~finite]).any()
    digests = [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(trial).tobytes()) for trial in store.stored]
    assert group["trial_digest"][:].tolist() == digests


def test_zarr_finds_chunks_of_a_trial_in_shards_of_a_session(volumes):
    betas = zarr.open_array(volumes.path / "betas", mode="r")
    assert (betas.chunks, betas.shards) == ((1, 5, 11, 3), (7, 5, 11, 3))
    assert betas.metadata.dimension_names == ("trial", "z", "y", "x")


def test_zarr_reads_without_the_consolidated_metadata(volumes):
    group = zarr.open_group(volumes.path, mode="r", use_consolidated=False)
    assert len(list(group.array_keys())) == 8
    assert np.array_equal(group["betas"][...], volumes.stored)


def test_open_zarr_gives_float64_that_rounds_to_our_float32(store):
    theirs, ours = xr.open_zarr(store.path), nsd_zarr.open_dataset(store.path)
    assert theirs.betas.dtype == ("f4" if store.stored.dtype.kind == "f" else "f8")
    assert np.array_equal(theirs.betas.values.astype("f4"), ours.betas.values, equal_nan=True)
    assert theirs.betas.dims == ours.betas.dims
    assert theirs.betas.attrs == ours.betas.attrs
    assert set(theirs.variables) - {"trial_digest"} == set(ours.variables) - {"store"}
    for name in set(theirs.variables) - {"betas", "trial_digest"}:
        assert ours[name].variable.equals(theirs[name].variable.load())
        assert theirs[name].attrs.items() <= ours[name].attrs.items()


def test_open_zarr_gives_the_counts_where_scaling_is_declined(volumes):
    betas = xr.open_zarr(volumes.path, mask_and_scale=False).betas
    assert betas.dtype == np.int16
    assert np.array_equal(betas.values, volumes.stored)


def test_missing_shard_reads_as_zeros_through_zarr_and_raises_through_ours(volumes, tmp_path, pipeline):
    store = volumes.copy_to(tmp_path / "lossy.zarr")
    store.shard_path(24).unlink()
    assert volumes.stored[21:28].all()
    assert not zarr.open_array(store.path / "betas", mode="r")[21:28].any()
    assert not xr.open_zarr(store.path).betas[21:28].values.any()
    for options in ({}, {"raw": True}, {"chunks": {}}):
        with pytest.raises(DamageFound, match=r"trial 24 .*betas shard 3"):
            nsd_zarr.open_dataset(store.path, **options).betas[24:28].compute()


def test_flipped_bit_is_refused_by_zarr_too(volumes, tmp_path, pipeline):
    store = volumes.copy_to(tmp_path / "flipped.zarr")
    data = bytearray(store.shard_path(0).read_bytes())
    data[30] ^= 4
    store.shard_path(0).write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(store.path / "betas", mode="r")[0]
