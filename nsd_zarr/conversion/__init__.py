"""Sources -> a finished store. Joins source and store; knows nothing of maintaining a finished one.

Named conversion rather than convert, so that the function `nsd_zarr.convert` is not shadowed by its own folder.
Reading order:

settings              what affects values or bytes
plan                  what a conversion will do, from metadata only
image_plan            the same for stimulus images
resume                what an earlier run left, and what of it counts
memory, space         whether it fits
memory_choice         how much memory is taken, by configuration and page cache
estimate/             how long it takes, by how many requests, and what these cost
run                   carries a plan out: lock, skeleton, one unit a session, finish
unit                  one session: read, compress, write, record
context               what the units of a run share in a process: events, stop signals, blocks
pipeline/             how opening, reading, adding up and writing overlap; what a session's statistics are
ledger                the durable records of a run
lock, turns           one run a store; locks that others hold for a moment
cluster               units on a Dask cluster
events                what a run reports while it goes
experiment/           the files around the betas: what of them goes in, and the arrays made of them
contents              the arrays beside the trials, as they enter a store
root_copy             the copy of the root document, in the run folder
finish                the skeleton, and the last write that makes a store complete
parts/                one conversion that several processes share, each with its part of the sessions
subjects/             several subjects in one store: a group for each
images                stimulus images as a store of their own
"""
