"""Codecs of stores by other writers: those that compute, and none that may run code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nsd_zarr.errors import StoreError
from nsd_zarr.store.foreign.inflation import COMPRESSORS

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
        names = list(_list_codecs(array.metadata.to_dict()))
        odd = sorted(set(names) - _HARMLESS_CODECS)
        if odd:
            raise StoreError(
                f"{name} has the codec {', '.join(odd)!r}, expected one of {', '.join(sorted(_HARMLESS_CODECS))}: "
                "others may run code that the store brings along",
                path=path,
                found=odd,
                hint="Have who made the store write it with another codec.",
            )
        if sum(codec in COMPRESSORS for codec in names) > 1:
            raise StoreError(
                f"{name} is compressed more than once, by {', '.join(names)}, expected at most one compressor: nobody "
                "could say how large a chunk grows",
                path=path,
                found=names,
                hint="Have who made the store write it with one compressor.",
            )


def find_codec_name(codec: Any) -> str:
    """Name of a codec of zarr-python or numcodecs, or of its metadata."""
    settings = _find_settings(codec)
    return str(settings.get("id") or settings.get("name") or codec).removeprefix("numcodecs.")


def _find_settings(codec: Any) -> Any:
    if isinstance(codec, dict):
        return codec
    if hasattr(codec, "get_config"):
        return codec.get_config()
    return codec.to_dict() if hasattr(codec, "to_dict") else {}


def _list_codecs(document: Any) -> Iterator[str]:
    """Names of all codecs in the metadata of an array, Zarr 2 and 3, also those inside of shards."""
    listed = [document.get("compressor"), *(document.get("filters") or ()), *(document.get("codecs") or ())]
    for codec in (each for each in listed if each is not None):
        settings = _find_settings(codec)
        yield find_codec_name(codec)
        inner = settings.get("configuration") or {}
        yield from _list_codecs(inner) if "codecs" in inner else ()
        yield from _list_codecs({"codecs": inner["index_codecs"]}) if "index_codecs" in inner else ()
