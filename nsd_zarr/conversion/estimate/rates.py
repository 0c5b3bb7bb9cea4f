"""What estimates rest on: what was measured, on what and by which command; and what is assumed.

docs/scale.md has the same table. A GB is 10**9 bytes; of values, as they are decoded.
"""

from __future__ import annotations

GB = 10**9

# -- measured: processor seconds, on the two shared cores of a virtual machine, beside other work ------------------

START_SECONDS = 1.0
"""Of a run before its first session: starting Python, importing libraries. `time nsd-zarr convert`, of a few kB."""
CONVERT_SECONDS_PER_GB = 2.0
"""Reading values by offset from files that are not cached, adding them up, digests, and writing shards: all but
compression. A session of 1.05 GB took 2.7 s with lz4, 1.0 s of them the program's and 1.7 s the system's; of cached
files 1.6 s. Half of what three sessions take more than one: `convert user` and `convert system` that
`python benchmarks/full_subject.py DIR --sessions 3` and `--sessions 1` print. The first session takes 2 s more, in
which memory is touched for the first time; that is not counted."""
ENCODE_SECONDS_PER_GB = {"lz4": 0.6, "zstd": 4.7, "lz4hc": 9.4, "blosclz": 1.6, "zlib": 9.1}
"""Compressing them, each codec at its default level: `python benchmarks/codecs.py`. Other levels count as that one."""
UNPACK_SECONDS_PER_GB = 2.8
"""On top, of .nii.gz: zlib-ng unpacks 280 MB in 0.78 s (docs/design/0012-forms.md)."""
LIBRARY_SECONDS_PER_GB = 4.3
"""On top, of what is read through h5py or nibabel: h5py alone reads three sessions, 3.15 GB, in 13.5 s:
`python benchmarks/benchmark_convert.py --rounds 3` (docs/performance.md)."""
FETCH_SECONDS_PER_GB = 0.9
"""On top, of bytes that are fetched from a URL: 0.8 to 1.0 s for a session of 1.09 GB, by obstore from SeaweedFS on the
same machine, eight ranges of 16 MiB at a time."""
SEND_SECONDS_PER_GB = 0.9
"""On top, of bytes that are sent to a URL, each request signed with the SHA-256 of its body; measured as fetching."""

# -- assumed ----------------------------------------------------------------------------------------------------

DISK_BYTES_PER_SECOND = 1.0e9
"""Reading and writing together, in large pieces: of a common NVMe disk; 1.0 GB/s was measured on a virtual one."""
NETWORK_BYTES_PER_SECOND = 1.0e9
"""To and from a server of objects, in each direction."""

# -- measured: requests, counted by a proxy before SeaweedFS (tests/servers/test_requests.py) ----------------------

PLANS = 2
"""A conversion plans before and under the lock, and looks at every source each time."""
READS_TO_INSPECT = 2
"""Of each session file and plan: HEAD, and the block that describes it."""
READS_TO_COMPARE = 1
"""Of each session file once it is converted: HEAD, whether it is still the same."""
READS_OF_INPUT = 4
"""Of each file of an experiment: it is read for the plan and again to be stored, and looked at in both plans."""
LISTS_OF_SOURCE = 4
"""Of each plan: what is in the folders of SOURCE."""
READS_OF_RUN, WRITES_OF_RUN = 11, 28
"""Of a store behind a URL: what the run reads, and writes, lists or removes, beside the files of the store and what is
done for each session: the lock, the run's own record, the root document and the metadata of betas once more."""
READS_OF_SESSION, WRITES_OF_SESSION = 1, 2
"""Of each session, in a store behind a URL: its record is written, a former one removed, and it is read at the end."""
WRITES_PER_SECOND = 1.5
"""As long as a run writes to a URL: its lock is renewed every two seconds, and looked at once a second."""

# -- prices -----------------------------------------------------------------------------------------------------

PRICES_AS_OF = "2026-11"
"""When the list prices below were looked up: S3 Standard in us-east-2, first tier, US dollars, as public copies of
https://aws.amazon.com/s3/pricing/ quote them. The page itself was not read, and regions and contracts differ."""
DOLLARS_PER_READ = 0.0004 / 1000
"""GET, HEAD and all other requests."""
DOLLARS_PER_WRITE = 0.005 / 1000
"""PUT, POST and LIST."""
DOLLARS_PER_GB_OUT = 0.09
"""Bytes that leave S3 for the internet; nothing within the region of the bucket."""
