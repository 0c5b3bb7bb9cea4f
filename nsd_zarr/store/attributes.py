"""What the root document says of a store as a whole, parsed once after it was checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nsd_zarr.image_sets import NSD
from nsd_zarr.layout import IMAGES, TRIALS
from nsd_zarr.store.format import FORMATS

COMPLETE = "complete"
"""Root attribute `status` of a store that is whole and on disk."""
INCOMPLETE = "incomplete"
"""Root attribute `status` from the first byte until then."""
_ORIGIN = ("subject", "space", "betas")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file from which a part of a store was made."""

    part: int
    """Session number, or number of the block of images, from 1."""
    name: str
    """Its name, without folders."""
    size: int
    """Bytes."""
    digest: str
    """Digest of the values that it held, over the digests of its trials; hexadecimal."""
    affine: list[list[float]] | None = None
    """RAS+ millimetres from NIfTI voxel indices (x, y, z, 1), four rows, where the file said it."""


@dataclass(frozen=True, slots=True)
class RootAttributes:
    """What this package asks of a root document. Nobody who has one looks into JSON."""

    format: str
    """Which format of this package; empty for a store of another."""
    format_version: int
    """Its version; 0 for a store of another."""
    format_minor: int
    """What newer readers find beside it, see store/format.py."""
    status: str
    """COMPLETE or INCOMPLETE."""
    checksum: str
    """Of the root document, which lists the digest of every other file."""
    settings: Mapping[str, Any]
    """Settings that decide values and bytes, as conversion/settings.py makes them."""
    libraries: Mapping[str, str]
    """Version of each library that took part."""
    sources: tuple[SourceFile, ...]
    """Source file of each session or block, in order; empty while the store is unfinished."""
    origin: Mapping[str, Any]
    """`subject`, `space`, `betas`, as far as the source said them."""
    notes: tuple[str, ...]
    """What was noticed about the sources."""
    experiment_notes: tuple[str, ...]
    """What was noticed about the experiment's files."""
    document: Mapping[str, Any] = field(repr=False)
    """All root attributes but the manifest, as they are stored: to write them again, and for people to look at."""

    @property
    def dataset(self) -> str:
        """Name of the dataset in each source file; empty where it is not known."""
        return str(self.settings.get("dataset", ""))

    @property
    def experiment(self) -> str:
        """Of a store of images, whose they are: nsd, nsdsynthetic."""
        return str(self.settings.get("experiment", NSD))

    @property
    def source_documents(self) -> list[dict[str, Any]]:
        """The sources as they are stored."""
        return list(self.document.get("sources", []))


def parse_attributes(document: dict[str, Any]) -> RootAttributes:
    """The root attributes *document*, which were checked. Raises KeyError or TypeError where they were not."""
    part = (IMAGES if document["format"] == FORMATS[IMAGES] else TRIALS).part
    return RootAttributes(
        format=document["format"],
        format_version=document["format_version"],
        format_minor=document.get("format_minor", 0),
        status=document["status"],
        checksum=document["checksum"],
        settings=document["settings"],
        libraries=document["libraries"],
        sources=tuple(
            SourceFile(source[part], source["name"], source["size"], source["digest"], source.get("affine"))
            for source in document.get("sources", ())
        ),
        origin={name: document[name] for name in _ORIGIN if name in document},
        notes=tuple(document.get("notes", ())),
        experiment_notes=tuple(document.get("experiment_notes", ())),
        document=document,
    )


def parse_foreign_attributes(document: dict[str, Any], checksum: str) -> RootAttributes:
    """What can be said of a store of another layout, or of a copy by another tool, from its group's attributes.

    *checksum* stands for that of a root document. Whatever else is there was not checked, and is left in `document`.
    """
    status = document.get("status", COMPLETE)
    return RootAttributes(
        format=next((name for name in FORMATS.values() if name == document.get("format")), ""),
        format_version=0,
        format_minor=0,
        status=str(status),
        checksum=checksum,
        settings={},
        libraries={},
        sources=(),
        origin={},
        notes=(),
        experiment_notes=(),
        document={**document, "checksum": checksum, "status": status},
    )
