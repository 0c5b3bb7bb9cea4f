"""The experiment around the betas: trial table, design, masks, regions, noise ceiling.

Reading order:

inspection    its files, read for the first time: fit, refused or left out
files         those that go into a store, and what to say of them
arrays        the arrays made of them
validity      which voxels have data in a session: the authors' volumes, held against the betas
"""
