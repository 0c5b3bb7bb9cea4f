"""What was delivered: session files, stimulus images, and what is known of an experiment. Reads only; knows no store.

Reading order:

protocol                what a part of a source offers to be converted, whatever its form
find                    which session files a user means
forms/                  session files by form: NIfTI and MGH, and surfaces of two files
inspect                 which inspector a file gets
session_part            what every session that is one file has alike
session                 a session file in HDF5
stimuli, images         the file of stimulus images, and blocks of its images
hdf5/                   how HDF5 files are read
identity                whether a file is still the one that was inspected
trial_cache             trials that were read together with those of another part
uniform                 what sessions of one store have in common
origin                  whose betas these are, by the names of the folders
experiment              the files of an experiment, found beside the betas
other_experiments       trials of resting runs, nsdsynthetic and nsdimagery
trial_table, design     which image each trial showed, and whether the design says the same
volume, roi             volumes beside the betas: masks, maps, regions
bounded                 reading such files whole, and no larger than they may be
"""
