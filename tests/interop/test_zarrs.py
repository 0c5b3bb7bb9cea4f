import subprocess
import sys

import numpy as np
import pytest
import xxhash

import nsd_zarr

pytest.importorskip("zarrs")

READ = """
import sys
import numpy as np
import zarr, zarrs

zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
for number, path in enumerate(sys.argv[2:]):
    group = zarr.open_group(path, mode="r")
    assert type(group["betas"].async_array.codec_pipeline) is zarrs.ZarrsCodecPipeline
    arrays = {name: array[...] for name, array in group.arrays()}
    arrays["trial_digest"] = arrays["trial_digest"].astype("U32")
    np.savez(f"{sys.argv[1]}/{number}.npz", trial=group["betas"][5], **arrays)
"""


def test_zarrs_reads_every_array_to_its_values(volumes, surfaces, floats, every_code, tmp_path):
    # In a process of its own: the pipeline is a setting of all of zarr, and zarrs can hang after a fork.
    stores = [volumes, surfaces, floats, every_code]
    command = [sys.executable, "-W", "error", "-c", READ, tmp_path, *(store.path for store in stores)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert (result.returncode, result.stderr) == (0, "")
    for number, store in enumerate(stores):
        found = np.load(tmp_path / f"{number}.npz")
        ours = nsd_zarr.open_dataset(store.path, raw=True)
        assert found["betas"].dtype == store.stored.dtype
        assert np.array_equal(found["betas"], store.stored, equal_nan=True)
        assert np.array_equal(found["trial"], store.stored[5], equal_nan=True)
        for name in ("session", "trial_in_session", "session_number"):
            assert found[name].tolist() == ours[name].values.tolist()
        digests = [xxhash.xxh3_128_hexdigest(np.ascontiguousarray(trial).tobytes()) for trial in store.stored]
        assert found["trial_digest"].tolist() == digests
