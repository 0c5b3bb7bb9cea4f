"""Stores of other layouts and places, read through zarr-python; none of what they bring is trusted.

Reading order:

open        any store: one of ours, or what zarr-python finds
bounds      how large its documents and members may be
codecs      which codecs compute, and do nothing else
inflation   how large a compressed chunk grows
bounded     arrays that refuse one that grows too large
group       its groups and arrays
reader      its trials, with the values that our own engine would give
"""
