"""Reads a store where nothing but the wheel is installed, and with --train trains on it beside PyTorch.

python .ci/read_alone.py tests/data/store_of_format_1_0.zip [--train]
"""

import importlib.util
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

import nsd_zarr
from nsd_zarr.libraries import EXTRAS

ABSENT = sorted(set(EXTRAS) - {"torch", "yaml", "fsspec", "jinja2"})
"""What only extras bring. PyYAML comes with zarr, fsspec and Jinja2 come with PyTorch."""


def main() -> None:
    assert "site-packages" in nsd_zarr.__file__, nsd_zarr.__file__
    there = [name for name in ABSENT if importlib.util.find_spec(name)]
    assert not there, f"{there} are installed: nothing is proved"
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(sys.argv[1]) as archive:
            archive.extractall(folder)
        (train if "--train" in sys.argv else read)(folder)


def read(store: str) -> None:
    ds = nsd_zarr.open_dataset(store)
    counts = nsd_zarr.open_dataset(store, raw=True).betas.values
    assert np.array_equal(ds.betas.values, counts / np.float32(300))
    print(f"nsd_zarr {nsd_zarr.__version__} read {len(counts)} trials; absent: {', '.join(ABSENT)}")


def train(store: str) -> None:
    import torch

    from nsd_zarr.torch import TrialDataset, TrialLoader

    loader = TrialLoader(TrialDataset(store), batch_size=5, shuffle=True, seed=0)
    model = torch.nn.LazyLinear(1)
    optimizer = None
    for batch in loader:
        loss = model(batch["betas"].flatten(1)).square().mean()
        optimizer = optimizer or torch.optim.SGD(model.parameters(), 1e-6)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"trained with torch {torch.__version__} on {Path(store).name}: {len(loader)} steps")


main()
