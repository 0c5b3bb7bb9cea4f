"""Fingerprints: published values, and no copies asked of the caller."""

from __future__ import annotations

import numpy as np
import pytest
import xxhash

from nsd_zarr.store.digest import join_digests, make_crc, make_digest


def test_crc_is_crc32c():
    # RFC 3720, appendix B.4: 32 bytes of zeros, of ones, ascending.
    assert make_crc(bytes(32)) == bytes.fromhex("aa36918a")
    assert make_crc(b"\xff" * 32) == bytes.fromhex("43aba862")
    assert make_crc(bytes(range(32))) == bytes.fromhex("4e79dd46")


@pytest.mark.parametrize("start", [0, 1, 3])
def test_crc_of_a_view_is_that_of_its_bytes(start):
    view = np.arange(256, dtype=np.uint8)[start:]
    assert make_crc(view) == make_crc(view.tobytes())


def test_digest_is_xxh3_128_of_bytes_or_values():
    assert make_digest(b"") == "99aa06d3014798d86001c324468d497f"
    values = np.arange(385, dtype="int16").reshape(5, 7, 11)
    assert make_digest(values) == xxhash.xxh3_128_hexdigest(values.tobytes())


def test_joined_digest_depends_on_order():
    first, second = make_digest(b"1"), make_digest(b"2")
    assert join_digests([first, second]) == make_digest(bytes.fromhex(first + second))
    assert join_digests([first, second]) != join_digests([second, first])
