"""Trials of a store for PyTorch: a map-style dataset for the stock DataLoader, and a faster loader of its own."""

from nsd_zarr.libraries import explain_absence

with explain_absence("nsd_zarr.torch"):
    from nsd_zarr.torch.dataset import TrialDataset
    from nsd_zarr.torch.device import to_percent
    from nsd_zarr.torch.loader import TrialLoader

__all__ = ["TrialDataset", "TrialLoader", "to_percent"]
