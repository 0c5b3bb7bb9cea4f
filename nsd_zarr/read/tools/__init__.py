"""Datasets as other tools take them: scikit-learn and himalaya, rsatoolbox, nilearn.

Reading order:

samples      rows by voxels, in memory, with what describes both
rsa          rsatoolbox's Dataset
brain_images nilearn's images, of volumes and of surfaces
methods      ds.nsd.to_...
"""
