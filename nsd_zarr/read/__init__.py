"""Reading a store lazily through xarray. Knows the store.

Reading order:

dataset   nsd_zarr.open_dataset
backend   the xarray engine
stored    variables of a store in xarray, and of which store each is
original  whether betas are still those of the store
lazy      arrays of a store as xarray's lazy indexing asks for them
bulk      many trials at once
percent   counts as percent signal change
view      trials as they are asked for: some voxels, z-scored, averaged
score     what z-scores are made by
accessor  ds.nsd: reading by meaning
derive    datasets from datasets
region    the voxels of a region
roi       which voxels a region has
table     trials and regions as tables
noise     the noise ceiling of a dataset
volume    where voxels lie: lists, volumes, NIfTI
picture   a volume as three slices
tools     what scikit-learn, rsatoolbox and nilearn take
"""
