"""Reading a store lazily through xarray. Knows the store.

Reading order:

dataset   nsd_zarr.open_dataset
backend   the xarray engine
lazy      arrays of a store as xarray's lazy indexing asks for them
bulk      many trials at once
percent   counts as percent signal change
view      trials as they are asked for: some voxels, z-scored, averaged
score     what z-scores are made by
accessor  ds.nsd: reading by meaning
derive    datasets from datasets
roi       which voxels a region has
rois      what regions there are, as a table
noise     the noise ceiling of a dataset
volume    where voxels lie: lists, volumes, NIfTI
picture   a volume as three slices
"""
