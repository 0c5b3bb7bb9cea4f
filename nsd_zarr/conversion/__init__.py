"""From sessions to a store: plan, run, ledger, verify. Joins source and store.

Named conversion rather than convert, so that the function `nsd_zarr.convert` is not shadowed by its own folder.
"""
