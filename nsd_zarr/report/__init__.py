"""One page for a human: what a store holds, in pictures and numbers.

Reading order:

numbers    what the report says, as plain data
gather     from the root document and the statistics of sessions
reliability  one reading of the trials of repeated images: noise ceiling, correlation of showings
regions    the noise ceiling of each region
drawings   each figure, as a PNG
page       the page: figures and numbers in a template
run        nsd_zarr.make_report
"""
