"""`ds.nsd.to_...`: a dataset in the form that the next tool takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nsd_zarr.read.table import Summary

if TYPE_CHECKING:
    import xarray as xr

    from nsd_zarr.read.tools.samples import XY, TrainTestXY


class Conversions(Summary):
    """What of `ds.nsd` hands data to other tools. Each imports its tool when it is called."""

    def to_xy(
        self,
        roi: Any = None,
        split: str | None = None,
        *,
        labels: Sequence[str | int] | str | int | None = None,
        hemisphere: str | None = None,
        missing: str = "drop",
    ) -> XY | TrainTestXY:
        """Arrays and image ids for scikit-learn and himalaya: `x, y = ds.nsd.to_xy(roi="nsdgeneral")`.

        `x`: responses, float32 (sample, voxel), C order, as the dataset has them (percent, or z-scores behind zscore);
        a sample is a trial, behind average_repeats an image. `y`: the image of each sample, 0-based 73k id. With
        *split* "shared1000" or "shared515" (see split) two such pairs, of the same voxels:
        `train, test = ds.nsd.to_xy("V1v", "shared1000")`; "train" or "test" is one side of "shared1000".

        *roi*, *labels*, *hemisphere*: as roi takes them, or a mask; by default all voxels that the dataset has, of a
        volume those of the brain mask. *missing*, a voxel without data in a session (see missing): "drop" leaves it
        out, "nan" and "zero" are what it is there. The voxels of *x* are those of
        `ds.nsd.roi(..., complete=True)`, whose `to_volume` brings results back.

        Reads each trial once. Raises ConfigError, StoreError (no `nsd_id`), and DoesNotFit before reading what this
        process may not hold.

        >>> train, test = ds.nsd.zscore("session").nsd.to_xy("nsdgeneral", "shared1000")
        >>> train.x.shape[1] == test.x.shape[1], set(train.y) & set(test.y)
        (True, set())
        """
        from nsd_zarr.read.tools.samples import make_xy

        return make_xy(self._dataset, roi, split, labels, hemisphere, missing)

    def to_rsatoolbox(self, roi: Any = None, *, missing: str = "drop") -> Any:
        """An rsatoolbox Dataset: measurements (sample, voxel), in memory. Needs rsatoolbox: pip install rsatoolbox.

        Observations are described by every column along `trial` (or `image`), such as `nsd_id` and `session`; channels
        by every coordinate along `voxel`, such as `z`, `y`, `x`, `label` and `ncsnr`; the whole by subject, space,
        betas, region and units. *roi*, *missing*: as in to_xy. Raises as to_xy, and ImportError.

        >>> v1 = ds.nsd.zscore("session").nsd.roi("V1v").nsd.to_rsatoolbox()
        >>> v1.n_obs == ds.sizes["trial"], "nsd_id" in v1.obs_descriptors
        (True, True)
        """
        from nsd_zarr.read.tools.rsa import make_rsa_dataset

        return make_rsa_dataset(self._dataset, roi, missing)

    def to_nilearn(self, what: int | xr.DataArray | None = None, *, mesh: Any = None) -> Any:
        """What nilearn takes: a 4-D image of volumes, or a SurfaceImage of surfaces.

        *what*: None for all trials (or images) of the dataset; the position of one, from 0; or any map, such as
        `ds.brainmask` or `ds.ncsnr`; or values of voxels that roi chose, NaN elsewhere.

        Volumes: a nibabel image (X, Y, Z[, T]) with the affine of to_nifti. All trials are read when they are asked
        for: `image.slicer[..., 3:5]` and `image.dataobj[..., 3]` read two trials and one. What takes them all, as
        nilearn's maskers do, holds them all.

        Surfaces: data of each hemisphere (vertex[, T]) on *mesh*: a PolyMesh, or {"left": ..., "right": ...} with files
        (`nsddata/freesurfer/subjAA/surf/lh.white`) or meshes of nilearn. Needs nilearn: pip install nilearn.

        Raises ConfigError without a mesh, or for one of another size; StoreError for volumes without an affine;
        DoesNotFit.

        >>> image = ds.nsd.to_nilearn()
        >>> image.shape == ds.betas.shape[:0:-1] + ds.betas.shape[:1]
        True
        >>> image.slicer[..., 3:5].get_fdata().shape[3]
        2
        """
        from nsd_zarr.read.tools.brain_images import make_images

        return make_images(self._dataset, what, mesh)
