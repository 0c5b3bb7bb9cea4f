"""Arrays of other writers, whose chunks are looked at before they are decoded: none may grow beyond its bounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nsd_zarr.store.foreign.bounds import MAX_INFLATED_BYTES
from nsd_zarr.store.foreign.codecs import find_codec_name
from nsd_zarr.store.foreign.inflation import COMPRESSORS, is_oversize


def bound_array(array: Any) -> Any:
    """The zarr.Array *array* with codecs that refuse a chunk beyond twice what its metadata make of it.

    At least MAX_INFLATED_BYTES, for text has no size. An array without compressed chunks is returned as it is.
    """
    import zarr

    max_bytes, metadata = _find_max_bytes(array), array.metadata
    if hasattr(metadata, "codecs"):
        bounded = replace(metadata, codecs=_bound_codecs(metadata.codecs, max_bytes))
    elif metadata.compressor is not None and find_codec_name(metadata.compressor) in COMPRESSORS:
        bounded = replace(metadata, compressor=_make_bounded_v2()(metadata.compressor, max_bytes))
    else:
        return array
    return zarr.Array(zarr.AsyncArray(metadata=bounded, store_path=array.store_path))


def _find_max_bytes(array: Any) -> int:
    chunk_bytes: int = math.prod(array.shards or array.chunks) * max(1, array.dtype.itemsize)
    return max(MAX_INFLATED_BYTES, 2 * chunk_bytes)


def _bound_codecs(codecs: Sequence[Any], max_bytes: int) -> tuple[Any, ...]:
    """*codecs* of Zarr 3, also those inside of shards."""
    return tuple(_bound_codec(codec, max_bytes) for codec in codecs)


def _bound_codec(codec: Any, max_bytes: int) -> Any:
    if hasattr(codec, "index_codecs"):
        return replace(codec, codecs=_bound_codecs(codec.codecs, max_bytes))
    name = find_codec_name(codec)
    return _make_bounded()(codec, name, max_bytes) if name in COMPRESSORS else codec


def _check(name: str, data: Any, max_bytes: int) -> None:
    if is_oversize(name, np.ascontiguousarray(data).view(np.uint8).reshape(-1).data, max_bytes):
        raise ValueError(f"a chunk of codec {name} grows beyond {max_bytes} bytes, more than its array can use")


@functools.cache
def _make_bounded() -> Any:
    """A codec of Zarr 3 around another one. A class of zarr-python's, which is imported when it is needed."""
    from zarr.abc.codec import BytesBytesCodec

    @dataclass(frozen=True)
    class Bounded(BytesBytesCodec):
        inner: Any
        name: str
        max_bytes: int
        is_fixed_size = False

        def to_dict(self) -> Any:
            return self.inner.to_dict()

        def evolve_from_array_spec(self, array_spec: Any) -> Any:
            return replace(self, inner=self.inner.evolve_from_array_spec(array_spec))

        def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            _check(self.name, chunk_bytes.as_numpy_array(), self.max_bytes)
            return self.inner._decode_sync(chunk_bytes, chunk_spec)

        async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:
            import asyncio  # Here it is there already; a conversion starts 20 ms sooner without it.

            await asyncio.to_thread(_check, self.name, chunk_bytes.as_numpy_array(), self.max_bytes)
            return await self.inner._decode_single(chunk_bytes, chunk_spec)

        def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
            return int(self.inner.compute_encoded_size(input_byte_length, chunk_spec))

    return Bounded


@functools.cache
def _make_bounded_v2() -> Any:
    """A compressor of Zarr 2 around another one."""
    from numcodecs.abc import Codec

    class Bounded(Codec):  # type: ignore[misc]
        codec_id = "bounded"

        def __init__(self, inner: Any, max_bytes: int) -> None:
            self.inner, self.max_bytes, self.codec_id = inner, max_bytes, inner.codec_id

        def encode(self, buf: Any) -> Any:
            return self.inner.encode(buf)

        def decode(self, buf: Any, out: Any = None) -> Any:
            _check(self.codec_id, np.frombuffer(buf, np.uint8), self.max_bytes)
            return self.inner.decode(buf, out)

        def get_config(self) -> Any:
            return self.inner.get_config()

    return Bounded
