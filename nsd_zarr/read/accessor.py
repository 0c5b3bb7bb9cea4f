"""`ds.nsd`: what one asks of an NSD dataset by its meaning. Registered by nsd_zarr.registration."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from nsd_zarr.errors import ConfigError
from nsd_zarr.read.derive import (
    IMAGE,
    TRIAL,
    average_images,
    get_betas,
    get_column,
    get_shared515,
    score_sessions,
)
from nsd_zarr.read.missing import make_missing
from nsd_zarr.read.noise import count_showings, make_ceiling, measure_ncsnr
from nsd_zarr.read.region import choose_region, read_atlas
from nsd_zarr.read.table import make_roi_table, make_table
from nsd_zarr.read.tools.methods import Conversions
from nsd_zarr.read.volume import make_nifti, make_volume, read_affine
from nsd_zarr.science.splits import make_split

if TYPE_CHECKING:
    import pandas as pd


class TrainTest(NamedTuple):
    """Two datasets that share no image: to train on, and to test on."""

    train: xr.Dataset
    test: xr.Dataset


class NsdAccessor(Conversions):
    """Reading by meaning. Each method returns xarray objects, and reads no trial until their values are asked for.

    Methods follow each other in any order that makes sense, also behind `isel` and `sel`:

    >>> v1 = ds.nsd.roi("prf-visualrois", labels=["V1v", "V1d"]).nsd.zscore("session")
    >>> train, test = v1.nsd.split("shared1000")
    >>> test.nsd.average_repeats().betas.dims
    ('image', 'voxel')

    Trials that are read come straight from the store: decoded by threads into reused buffers, only the voxels asked
    for are scaled, scored and kept. Betas that were loaded, changed, or opened with Dask (`chunks=`) give the same
    values by xarray's own operations.
    """

    @property
    def missing(self) -> xr.DataArray:
        """Which voxels have no data in each session, bool, (session_number, z, y, x); lazy. After roi (.., voxel).

        A voxel has no data in a session when it does not vary over all of the session's trials in the store, is NaN in
        one, or is 0 in `valid`; outside of the brain mask that is every voxel. Raises StoreError without statistics.

        >>> ds.nsd.missing.dims
        ('session_number', 'z', 'y', 'x')
        """
        return make_missing(self._dataset)

    @property
    def rois(self) -> pd.DataFrame:
        """What regions and labels there are, one row a label.

        Columns: `roi` (the set), `label` and its `number`, `voxels` (by the file of the whole brain), `lh` and `rh`
        (voxels by the file of that hemisphere; NA where the store has none), `origin`: "atlas" (HCP_MMP1, Kastner2015),
        "drawn on fsaverage", "drawn in the subject", "mask"; empty for sets that are not the dataset's own. Counts are
        of the voxels that this dataset still has.

        >>> ds.nsd.rois.query("label == 'V1v'").origin.tolist()
        ['drawn in the subject']
        """
        return make_roi_table(read_atlas(self._dataset))

    def roi(
        self,
        *names: str | Sequence[str],
        labels: Sequence[str | int] | str | int | None = None,
        hemisphere: str | None = None,
        mask: Any = None,
        complete: bool = False,
    ) -> xr.Dataset:
        """The voxels of a region: betas become (trial, voxel), and every other volume (voxel,) as well.

        *names*: ROIs ("nsdgeneral", "prf-visualrois", "brainmask") or labels ("V1v"), also as lists; several are put
        together. *labels*: of the one ROI named, by name or by number (from 1). *hemisphere*: "lh" or "rh", what the
        file of that hemisphere labels; a voxel may be in both. *mask*: in place of names, a volume (z, y, x) as an
        array or DataArray: the voxels where it is True or > 0. *complete*: only voxels with data in all sessions of
        these trials (see missing). Otherwise coordinate `sessions_missing` counts the sessions that each voxel lacks;
        where it is not 0 that is logged once (logger `nsd_zarr`), and is in the attribute `missing_data` of betas.

        Voxels come in C order of the volume (z, y, x), with coordinates `z`, `y`, `x` (indices from 0); where the store
        has an affine `right_mm`, `anterior_mm`, `superior_mm` (RAS+, the file's own millimetres); and, asked for by
        name, `roi`, `hemisphere` ("lh", "rh", "both"; empty where the store does not know) and `label`, of the first
        name that has the voxel. What was asked for is the attribute `roi`. Reads the ROI volumes; no trial.

        Raises ConfigError, naming what is near, for a name that is unknown, a label that several ROIs have, a label of
        an atlas alone without it (V1 of HCP_MMP1 is roi("HCP_MMP1", labels="V1"), the subject's own is
        roi("V1v", "V1d")), or an empty region; StoreError where the store has no ROIs. Source of the coding: data
        manual, "ROIs": -1 not cortex, 0 without label.

        >>> ds.nsd.roi("V1v", "V1d").betas.dims
        ('trial', 'voxel')
        >>> best = ds.nsd.roi(mask=ds.ncsnr > 0.5)
        """
        return choose_region(self._dataset, names, labels, hemisphere, mask, complete)

    def zscore(self, by: str = "session", *, trials: Any = None, ddof: int = 0) -> xr.Dataset:
        """Betas z-scored voxel by voxel within each session, by the mean and standard deviation of its trials.

        Those are `session_mean` and `session_std` of the store, over all of a session's trials, whatever was selected.
        *trials*: take them from these trials alone, booleans or positions along `trial`, so that nothing of the test
        trials leaks into training: `ds.nsd.zscore("session", trials=~ds.shared1000)`; then the first read of a session
        reads those trials too.

        *ddof*: 0 as in NumPy and scikit-learn, or 1 as in MATLAB and the authors' noise ceiling. A voxel without data
        in a session (see missing) is NaN in all its trials; one with data that does not vary among *trials* is 0.0.
        Units: 1. Raises ConfigError when z-scored already, for raw counts and for means; StoreError without statistics.

        >>> ds.nsd.zscore("session").betas.attrs["units"]
        '1'
        """
        if by != "session":
            raise ConfigError(f"z-scores by {by!r}, expected 'session'", hint='Say zscore("session").', found=by)
        return score_sessions(self._dataset, trials, ddof)

    def average_repeats(self) -> xr.Dataset:
        """The mean over the showings of each image: betas become (image, ...), images as they first come. Lazy.

        A showing in a session in which a voxel has no data (see missing) does not count for it; NaN where none counts.
        Coordinates along `image`: `nsd_id` (0-based 73k id), `image_10k`, `shared1000`, `shared515`; `repeats`, the
        showings among these trials; and `showing_session`, their sessions: count_showings finds by them how many
        have data. Reading an image reads its trials, each once. Raises StoreError
        without `nsd_id`; ConfigError for raw counts.

        >>> ds.nsd.average_repeats().repeats.max().item() <= 3
        True
        """
        return average_images(self._dataset)

    def count_showings(self) -> xr.DataArray:
        """Behind average_repeats: how many showings with data each mean is made of, int8 (image, ...), 0 to 3.

        Reads the statistics of the sessions, no trial. Memory: one byte a value.

        >>> averaged = ds.nsd.roi("nsdgeneral").nsd.average_repeats()
        >>> averaged.nsd.count_showings().dims
        ('image', 'voxel')
        """
        return count_showings(self._dataset)

    def split(self, name: str, *, images: Any = None) -> TrainTest:
        """Training and test trials: `train, test = ds.nsd.split("shared1000")`. No image is in both.

        "shared1000": tests on the images that all subjects were to see. "shared515": on those of them that all eight
        subjects saw three times, by the column `shared515`, or *images*, their 0-based 73k ids. Both train on the
        images that are not shared. Raises ConfigError for another name; StoreError where the store does not say.

        >>> train, test = ds.nsd.split("shared1000")
        >>> bool(test.shared1000.all() and not train.shared1000.any())
        True
        """
        dataset = self._dataset
        known = get_shared515(dataset) if name == "shared515" and images is None else None
        split = make_split(name, partial(get_column, dataset), images, known)
        (dim,) = dataset["nsd_id" if images is not None else "shared1000"].dims
        return TrainTest(*(dataset.isel({dim: np.flatnonzero(side)}) for side in (split.train, split.test)))

    def compute_ncsnr(self, *, half: int | None = None) -> xr.DataArray:
        """Noise-ceiling signal-to-noise ratio of each voxel from these trials, by the authors' definition; float32.

        sqrt(max(0, 1 - v²)) / v, where v² is the variance (ddof 1) over the three repeats of an image, of betas
        z-scored within each session with ddof 1, averaged over images shown three times. An image with a showing in a
        session in which a voxel has no data (see missing) does not count for it; NaN where none counts. Betas that are
        z-scored already are taken as they are: the authors' numbers need zscore(ddof=1). *half*: 1 or 2, every second
        image in the order of 10k ids, from the first or the second: the authors' ncsnr_split1 and ncsnr_split2.

        Reads those trials once, a few images at a time. Raises ConfigError when no image was shown three times.
        Source: Allen et al. 2022, Methods; the authors' export_noiseceiling.m and calczscore.m.

        >>> ds.nsd.roi("nsdgeneral").nsd.compute_ncsnr().dims
        ('voxel',)
        """
        dataset = self._dataset
        scored = dataset if "zscore" in get_betas(dataset).attrs else score_sessions(dataset, ddof=1)
        return measure_ncsnr(scored, half)

    def noise_ceiling(self, n: Any = None) -> xr.DataArray:
        """Noise ceiling of each voxel in percent of variance, from the dataset's `ncsnr`: 100 ncsnr² / (ncsnr² + 1/n).

        *n*: how many trials each response is the mean of, or one number for each image; None behind average_repeats:
        what was averaged, with images of fewer repeats and showings without data. Raises StoreError without `ncsnr`: it
        may be put there by `ds.assign(ncsnr=ds.nsd.compute_ncsnr())`. Source: data manual, "Functional data (NSD)".

        >>> ceiling = ds.nsd.noise_ceiling(3)
        >>> ceiling.attrs["units"]
        'percent'
        """
        return make_ceiling(self._dataset, n)

    def trials(self) -> pd.DataFrame:
        """The trial table as a pandas DataFrame: one row a trial (behind average_repeats: an image), indexed by it.

        Columns are the coordinates along that axis: `session` (from 1), `trial_in_session` (from 0), and where the
        store has its trial table `nsd_id` (0-based 73k id), `repeat`, `shared1000`, `run` and the behaviour. Reads no
        trial. Raises StoreError without such an axis.

        >>> table = ds.nsd.trials()
        >>> len(table) == ds.sizes["trial"]
        True
        >>> table.query("session == 2 and shared1000").nsd_id.dtype
        dtype('int32')
        """
        return make_table(self._dataset)

    def to_volume(self, values: xr.DataArray) -> xr.DataArray:
        """Values of voxels that roi chose, (..., voxel), back in their volume: NaN (integers: 0) everywhere else.

        >>> v1 = ds.nsd.roi("V1v")
        >>> v1.nsd.to_volume(v1.ncsnr).dims
        ('z', 'y', 'x')
        """
        return make_volume(values)

    def to_nifti(self, what: int | xr.DataArray) -> Any:
        """A nibabel image, axes X Y Z, RAS+ by the store's affine: save it with `.to_filename(...)`.

        Its millimetres are those of the dataset's own files (sform code 1, qform code 0): 0 is the middle of the slab.
        They are neither scanner nor anatomical coordinates; the dataset's transforms lead there.

        *what*: position of a trial (or image), from 0; or any volume (z, y, x), one more axis allowed, such as
        `ds.ncsnr`; or values of voxels that roi chose. A box of a volume lands in its place. Raises IndexError;
        StoreError without an affine.

        >>> ds.nsd.to_nifti(0).shape == ds.betas.shape[:0:-1]
        True
        """
        affine = read_affine(self._dataset)
        return make_nifti(make_volume(what if isinstance(what, xr.DataArray) else self._get_trial(what)), affine)

    def plot(self, what: int | xr.DataArray = 0, **options: Any) -> Any:
        """Three orthogonal slices of a trial or volume, with the outline of a ROI: a matplotlib Figure.

        *what*: as in to_nifti. *options*: `roi="nsdgeneral"` (a name, several, or None), `at=(z, y, x)` (voxel indices;
        by default where the ROI is widest), `limit=` (end of the colour scale; by default the 99.5th percentile
        inside the brain), `title=`. Needs matplotlib: pip install "nsd-zarr[plot]".

        >>> figure = ds.nsd.plot(0)
        >>> figure.savefig("trial.png")
        """
        from nsd_zarr.read.picture import draw_slices

        values = what if isinstance(what, xr.DataArray) else self._get_trial(what)
        return draw_slices(self._dataset, values, **options)

    def _get_trial(self, position: Any) -> xr.DataArray:
        betas = get_betas(self._dataset)
        rows = [dim for dim in betas.dims if dim in (TRIAL, IMAGE)]
        return betas.isel({dim: position for dim in rows})
