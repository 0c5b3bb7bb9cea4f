"""What is asked for of an export: checked before a store is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nsd_zarr.errors import ConfigError
from nsd_zarr.options import suggest

FORMS = ("hdf5", "npy", "parquet", "nifti")
"""Forms of file."""
PLAIN, MINDEYE2, ALGONAUTS = "plain", "mindeye2", "algonauts"
LAYOUTS = {PLAIN: FORMS, MINDEYE2: ("hdf5",), ALGONAUTS: ("npy",)}
"""Names and arrangement of files, and the forms that each has."""
ORDERS = ("zyx", "xyz")
"""Order of voxels: C order of (z, y, x), as in a store, or of (x, y, z), as of what is masked in nibabel's arrays."""
MISSING = ("drop", "nan", "zero")
"""What voxels without data may become."""
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    # Source: MedARC-AI/MindEyeV2: nsdgeneral of nibabel arrays, z-scored by scikit-learn: constant voxels are 0.
    "mindeye2": {"roi": ("nsdgeneral",), "zscore": "session", "missing": "zero", "order": "xyz"},
    # Source: gifale95/algonauts_2023, challenge_data_preparation.py.
    "algonauts": {"roi": ("nsdgeneral",), "zscore": "session", "missing": "drop", "average": True},
}
"""What a layout asks for where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class Request:
    """An export. None: nobody said."""

    form: str
    """One of FORMS."""
    layout: str = "plain"
    """One of LAYOUTS."""
    roi: tuple[str, ...] | None = None
    """Names of regions or labels; None for whole volumes."""
    split: str | None = None
    """shared1000 or shared515 (two folders, train and test), train, test; None for all."""
    zscore: str | None = None
    """session, or None."""
    average: bool | None = None
    """Whether the mean over the showings of each image is taken."""
    raw: bool | None = None
    """Whether stored counts are asked for."""
    missing: str | None = None
    """One of MISSING; None as the store has it: 0 in percent and counts, NaN in z-scores and means."""
    order: str | None = None
    """One of ORDERS; None for zyx."""
    sessions: tuple[int, ...] | None = None
    """Numbers of sessions; None for all."""

    def describe(self) -> dict[str, Any]:
        """What decides the files, as plain JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def make_request(form: str, **options: Any) -> Request:
    """A checked Request, with what its layout asks for. Raises ConfigError."""
    roi = options.get("roi")
    options["roi"] = (roi,) if isinstance(roi, str) else tuple(roi) if roi else None
    given = Request(form, **{name: value for name, value in options.items() if value is not None})
    _check_words(given)
    preset = {name: value for name, value in PRESETS[given.layout].items() if getattr(given, name) is None}
    made = replace(given, **preset)
    if made.raw and (made.zscore or made.average or made.missing == "nan"):
        raise ConfigError(
            "counts can neither be z-scored nor averaged nor NaN", hint="Leave out raw: percent signal change can."
        )
    return made


def _check_words(given: Request) -> None:
    known: dict[str, tuple[str, ...]] = {
        "form": FORMS,
        "layout": tuple(LAYOUTS),
        "zscore": ("session",),
        "missing": MISSING,
        "order": ORDERS,
    }
    for name, words in known.items():
        value = getattr(given, name)
        if value is not None and value not in words:
            raise ConfigError(f"{name} = {value!r}", hint=suggest(str(value), words), found=value)
    if given.form not in LAYOUTS[given.layout]:
        raise ConfigError(
            f"layout {given.layout} is of {LAYOUTS[given.layout][0]} files, asked for as {given.form}",
            hint=f"Say --as {LAYOUTS[given.layout][0]}.",
            expected=LAYOUTS[given.layout][0],
            found=given.form,
        )
