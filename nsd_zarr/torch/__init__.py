"""Trials of a store for PyTorch: a map-style dataset for the stock DataLoader, and a faster loader of its own."""

try:
    import torch  # noqa: F401 - imported first, so that the message for its absence names the cure
except ImportError as error:
    raise ImportError('nsd_zarr.torch needs PyTorch: pip install "nsd-zarr[torch]"') from error

from nsd_zarr.torch.dataset import TrialDataset
from nsd_zarr.torch.device import to_percent
from nsd_zarr.torch.loader import TrialLoader

__all__ = ["TrialDataset", "TrialLoader", "to_percent"]
