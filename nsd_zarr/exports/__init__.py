"""A store as files that other tools read: HDF5, NumPy, Parquet, NIfTI, and the layouts of two challenges.

Reading order:

request    what is asked for: form, layout, voxels, samples
choice     the samples of each file, as lazy datasets
algonauts  which files the layout of Algonauts 2023 has
files      how one file is written: opened again where it was, row by row
matrix     .npy and .hdf5: rows at their offsets
parquet    .parquet
nifti      .nii.gz
tables     what lies beside the samples: trials, voxels
ledger     what is on disk, for the next run
run        nsd_zarr.export
"""
