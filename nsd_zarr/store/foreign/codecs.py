"""Codecs of stores by other writers: those that compute, and none that may run code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nsd_zarr.errors import StoreError

_HARMLESS_CODECS = frozenset(
    [
        "bytes",
        "blosc",
        "bz2",
        "crc32c",
        "gzip",
        "lz4",
        "lzma",
        "sharding_indexed",
        "transpose",
        "vlen-bytes",
        "vlen-utf8",
        "zlib",
        "zstd",
        "adler32",
        "bitround",
        "crc32",
        "delta",
        "fixedscaleoffset",
        "fletcher32",
        "jenkins_lookup3",
        "packbits",
        "quantize",
        "shuffle",
        "zfpy",
    ]
)
"""Codecs that compute and do nothing else. numcodecs before 0.16.6 runs what a chunk of its codec `pickle` says."""


def check_codecs(group: Any, path: Path) -> None:
    """Refuse arrays with other codecs, before any chunk is decoded (opening decodes none). Raises StoreError."""
    for name, array in group.arrays():
        odd = sorted(set(_list_codecs(array.metadata.to_dict())) - _HARMLESS_CODECS)
        if odd:
            raise StoreError(
                f"{name} has the codec {', '.join(odd)!r}, expected one of {', '.join(sorted(_HARMLESS_CODECS))}: "
                "others may run code that the store brings along",
                path=path,
                found=odd,
                hint="Have who made the store write it with another codec.",
            )


def _list_codecs(document: Any) -> Iterator[str]:
    """Names of all codecs in the metadata of an array, Zarr 2 and 3, also those inside of shards."""
    listed = [document.get("compressor"), *(document.get("filters") or ()), *(document.get("codecs") or ())]
    for codec in (each for each in listed if each is not None):
        settings = codec if isinstance(codec, dict) else codec.get_config() if hasattr(codec, "get_config") else {}
        yield str(settings.get("id") or settings.get("name") or codec).removeprefix("numcodecs.")
        inner = settings.get("configuration") or {}
        yield from _list_codecs(inner) if "codecs" in inner else ()
        yield from _list_codecs({"codecs": inner["index_codecs"]}) if "index_codecs" in inner else ()
