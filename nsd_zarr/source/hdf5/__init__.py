"""How HDF5 files are read, whatever they hold: opened and checked, by byte offset, or through h5py.

Reading order:

dataset        one dataset, opened; what a file that is none is instead
parts          other files that hold its values: allowed in the file's own folder
chunk_index    where each row of a session in the dataset's own layout lies
gather         rows by byte offset, turned into trials
reader         trials of one dataset, by byte offset where the layout is known, through h5py otherwise
"""
