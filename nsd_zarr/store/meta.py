"""Metadata of one array of a store: its zarr.json, parsed once after it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class ArrayMeta:
    """What a reader asks of an array's metadata. Nobody who has one looks into JSON."""

    shape: tuple[int, ...]
    """Shape of the array."""
    dtype: str
    """As Zarr names it: "int16", ...; "string" for text."""
    dims: tuple[str, ...]
    """Name of each axis."""
    chunk_shape: tuple[int, ...]
    """Shape of what one file holds: of a shard, where the array has shards."""
    attributes: Mapping[str, Any]
    """Its own attributes."""
    is_compressed: bool = False
    """Whether the chunks of an array beside `betas` are Blosc frames; plain values otherwise."""
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The zarr.json itself, from which its file is made again byte for byte; empty for stores of another layout."""

    @property
    def is_text(self) -> bool:
        """Whether it holds texts rather than numbers."""
        return self.dtype == "string"

    def make_document(self) -> dict[str, Any]:
        """The zarr.json of the array."""
        return dict(self.document)

    def with_attributes(self, attributes: Mapping[str, Any]) -> ArrayMeta:
        """The same with other *attributes*, in the document as well."""
        return replace(self, attributes=attributes, document={**self.document, "attributes": dict(attributes)})


def parse_array(document: dict[str, Any]) -> ArrayMeta:
    """The metadata of an array from its zarr.json, which was checked. Raises KeyError or TypeError where it was not."""
    return ArrayMeta(
        shape=tuple(document["shape"]),
        dtype=document["data_type"],
        dims=tuple(document["dimension_names"]),
        chunk_shape=tuple(document["chunk_grid"]["configuration"]["chunk_shape"]),
        attributes=document["attributes"],
        is_compressed=any(codec["name"] == "blosc" for codec in document["codecs"]),
        document=document,
    )
