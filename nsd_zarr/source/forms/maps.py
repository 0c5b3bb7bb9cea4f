"""Maps and labels of surfaces beside the betas: one value a vertex, a file for each hemisphere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nsd_zarr.errors import SourceError
from nsd_zarr.nsd import HEMISPHERES
from nsd_zarr.source.bounded import decompress, read_head
from nsd_zarr.source.forms.mgh import FIRST_BYTE

MAP_ENDINGS = (".mgh", ".mgz")
"""Ends of the names of such files."""
MAX_VERTICES = 2**24
"""Of a hemisphere: sixty times those of the largest of the dataset."""
_TAIL_BYTES = 2**20
Vertices = tuple[int, int]
"""Vertices of the left and of the right hemisphere; 0 of one that is not in the store."""


def is_map(path: Path) -> bool:
    """Whether a file is of a surface, by its name."""
    return path.name.lower().endswith(MAP_ENDINGS)


def list_sides(path: Path, vertices: Vertices) -> tuple[Path, ...]:
    """The files of every hemisphere in the store, of which *path* is one: they differ in how their names begin."""
    return tuple(
        path.with_name(f"{side}.{path.name[3:]}") for side, count in zip(HEMISPHERES, vertices, strict=True) if count
    )


def parse_map(data: bytes, path: Path, vertices: Vertices | None) -> np.ndarray:
    """Values in the bytes of an MGH file, packed or not, of the hemisphere that its name says; shape (vertex,).

    Raises SourceError, naming *path*, also where they are not those of the betas.
    """
    from nibabel.freesurfer.mghformat import MGHImage

    try:
        shape = np.frombuffer(read_head(data, FIRST_BYTE)[4:20], ">i4").astype(np.int64)
        room = 8 * int(np.clip(shape, 1, MAX_VERTICES).prod()) if len(shape) == 4 else 0
        if not 0 < room <= 8 * MAX_VERTICES:
            raise ValueError(f"its header says shape {tuple(shape.tolist())}")
        image: Any = MGHImage.from_bytes(decompress(data, FIRST_BYTE + room + _TAIL_BYTES))
        values = np.asarray(image.dataobj)
    except Exception as error:  # Whatever the libraries make of bytes that are something else.
        raise SourceError(f"no surface map can be read from it: {error}", hint="Fetch it again.", path=path) from error
    side = path.name[:2].lower()
    expected = dict(zip(HEMISPHERES, vertices or (0, 0), strict=True)).get(side, 0)
    if values.shape.count(1) < values.ndim - 1 or values.size != expected:
        raise SourceError(
            f"a map of shape {values.shape}, expected {expected} vertices as the betas have them"
            + ("" if side in HEMISPHERES else f" in a file whose name begins with {' or '.join(HEMISPHERES)}"),
            hint="Give the map of the same surface, {lh,rh}.NAME.mgh or .mgz, or leave it out.",
            path=path,
            expected=expected,
            found=values.shape,
        )
    return values.reshape(-1).astype(values.dtype.newbyteorder("="), copy=False)
