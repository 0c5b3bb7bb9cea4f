"""Synthetic NSD roots: the dataset's own layout, made on the fly from a seed, with known truths planted."""

from __future__ import annotations

from nsd_zarr.simulate.anatomy import make_brain_mask, make_valid
from nsd_zarr.simulate.design import make_expdesign
from nsd_zarr.simulate.images import make_73k_ids, make_image_features, make_image_order, make_master_ordering
from nsd_zarr.simulate.recipe import LAYOUTS, Simulation
from nsd_zarr.simulate.regions import ROI_LABELS, make_hemisphere, make_roi
from nsd_zarr.simulate.root import SimulatedRoot, locate_root, simulate_root
from nsd_zarr.simulate.stimuli import make_images
from nsd_zarr.simulate.subjects import scale_shape, simulate_subjects
from nsd_zarr.simulate.trial_table import make_trial_table
from nsd_zarr.simulate.voxels import VoxelTruth, make_ncsnr, make_planted_ncsnr, make_voxel_truth

__all__ = [
    "LAYOUTS",
    "ROI_LABELS",
    "SimulatedRoot",
    "Simulation",
    "VoxelTruth",
    "locate_root",
    "make_73k_ids",
    "make_brain_mask",
    "make_expdesign",
    "make_hemisphere",
    "make_image_features",
    "make_image_order",
    "make_images",
    "make_master_ordering",
    "make_ncsnr",
    "make_planted_ncsnr",
    "make_roi",
    "make_trial_table",
    "make_valid",
    "make_voxel_truth",
    "scale_shape",
    "simulate_root",
    "simulate_subjects",
]
