"""Session files by form: volumes in HDF5 and NIfTI, surfaces by hemisphere in HDF5 and MGH.

Reading order:

files          which files make a session, by their names
content        what a file is by its first bytes
gzip_stream    a gzip file as one stream, unpacked on the way
header         what the header of a NIfTI file says
nifti          sessions as NIfTI, packed or not
mgh            one hemisphere of a session as MGH
surface        both hemispheres of a session, joined
maps           maps and labels beside the betas of a surface
by_offset      trials that lie one after the other in a file
independent    the same files through nibabel, to compare with
"""
