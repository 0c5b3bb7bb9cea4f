"""What local work imports of all this: nothing."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("servers")

CODE = """
import sys
import nsd_zarr

nsd_zarr.convert(sys.argv[1], sys.argv[2])
nsd_zarr.open_dataset(sys.argv[2]).betas[0].load()
nsd_zarr.verify(sys.argv[2])
print([name for name in sys.modules if name.startswith(("obstore", "boto3", "nsd_zarr.places.objects", "distributed"))])
"""


def test_local_work_imports_nothing_of_object_stores(source, tmp_path):
    words = [sys.executable, "-c", CODE, str(source), str(tmp_path / "subj01.zarr")]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
