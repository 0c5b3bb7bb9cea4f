"""A finished store: extend it, prove it, repair it. Uses conversion; is never used by it.

Reading order:

convert               the public functions: plan and convert
extension/            sessions that are added to a finished store, or replaced in it
attach                gives a store its experiment, or another one
verify                proves a store, in three strengths
verify_files          every file against the manifest
verify_shards         every trial of a shard against its digest
verify_tree           what is above the groups of several subjects
verify_values         every value against the sources, by independent readers
damage                one thing that is not as it was written
sources               the sources of a finished store, found again
repair                writes again what is damaged or missing
compare_sources       whether the sources still hold what was converted, for repair
expected              what a store must hold, for repair
recompute             statistics once more, from the trials
"""
