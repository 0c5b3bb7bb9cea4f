"""nsd_zarr.export: plan, write block by block, go on after any stop."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import xarray as xr

from nsd_zarr.config import make_config
from nsd_zarr.conversion.events import Listener, RunStarted, SessionDone, TrialsDone, ignore_event
from nsd_zarr.errors import DoesNotFit, StoreError
from nsd_zarr.exports.algonauts import choose_algonauts, write_algonauts_tables
from nsd_zarr.exports.choice import Choice, Part, choose_plain, choose_samples
from nsd_zarr.exports.files import Writer
from nsd_zarr.exports.ledger import Ledger
from nsd_zarr.exports.request import ALGONAUTS, Request, make_request
from nsd_zarr.exports.tables import write_tables
from nsd_zarr.layout import Kind, SessionNumber, format_bytes
from nsd_zarr.libraries import check_library
from nsd_zarr.options import ExportOptions, check_options
from nsd_zarr.places.durable import make_folder
from nsd_zarr.places.free import read_free_space
from nsd_zarr.places.locks import open_folder, try_lock
from nsd_zarr.progress import draw_progress
from nsd_zarr.read.dataset import open_dataset
from nsd_zarr.store.foreign.open import open_any

FILES = Kind("betas", "sample", "file")
"""The words of an export."""
MAX_BLOCK_BYTES = 32 * 2**20
"""Of samples that are read, then written and flushed: a flush takes some 10 ms, decoding so many longer."""
BASE_BYTES = 192 * 2**20
"""What Python, xarray and the threads that decode take, whatever is exported."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote.

    >>> report = nsd_zarr.export("subj01.zarr", "v1", "npy", roi="V1v")
    >>> report.files[0], report.samples
    ('betas.npy', 36)
    """

    store: str
    """The store's path or URL."""
    folder: Path
    """Where the files are."""
    form: str
    """hdf5, npy, parquet or nifti."""
    layout: str
    """plain, mindeye2 or algonauts."""
    files: tuple[str, ...]
    """Files below the folder: samples first, then tables."""
    samples: int
    """Trials or images in them; each hemisphere's file counts for itself."""
    written: int
    """Samples that this call wrote; 0 where all were there."""
    bytes: int
    """Of all files."""
    seconds: float
    """Wall time."""

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON, for --json."""
        return asdict(self) | {"folder": str(self.folder)}


def export(
    store: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    form: str,
    *,
    on_event: Listener = ignore_event,
    progress: bool = False,
    **options: Unpack[ExportOptions],
) -> ExportReport:
    """Write a store, or a part of it, as files for another tool. Called again after any stop, it goes on.

    Parameters
    ----------
    store
        Path or URL of a finished store.
    folder
        Where the files go: new, empty, or of the same export, which is gone on with. `export.json` in it says what
        it is of.
    form
        "hdf5": one file with dataset `betas` (sample, voxel), and tables `trials/...`, `voxels/...`.
        "npy": `betas.npy` (sample, voxel), which NumPy maps. "parquet": one file a session, a row a trial with all its
        columns, `betas` a list. "nifti": one 4-D `.nii.gz` a session, 0 outside of the region. Without a region
        samples are whole volumes, (z, y, x). Beside them lie `trials.csv` and of a region `voxels.csv`.
    on_event
        Called with RunStarted, TrialsDone and SessionDone (here: a file is done), from any thread.
    progress
        Whether to draw a bar, in a notebook or on standard error.
    **options
        See ExportOptions.

    Returns
    -------
    ExportReport

    Raises
    ------
    ConfigError
        An option that is not taken, or that the store cannot fulfil.
    StoreError
        The store cannot be read, the folder holds something else, or another process exports to it.
    ResumeRefused
        The folder holds an unfinished export of something else.
    DoesNotFit
        Memory or disk do not suffice.
    MissingLibrary
        Parquet without pyarrow.

    Examples
    --------
    >>> report = nsd_zarr.export("subj01.zarr", "v1", "npy", roi="V1v", split="shared1000", zscore="session")
    >>> report.files
    ('train/betas.npy', 'test/betas.npy', 'train/trials.csv', 'test/trials.csv', 'voxels.csv')
    """
    check_options("export", options, ExportOptions, others=("on_event", "progress"))
    started, target = time.perf_counter(), Path(os.path.abspath(folder))
    check_library("pyarrow" if form == "parquet" else "h5py", f"an export to {form}")  # before anything is written
    fresh, config = bool(options.pop("fresh", False)), make_config(None, memory=options.pop("memory", None))
    options["sessions"] = make_config(None, sessions=options.get("sessions")).sessions
    request = make_request(form, **options)
    opened = open_any(store)
    choice = _choose(open_dataset(store, raw=bool(request.raw)), request)
    block_bytes = _plan_memory(choice.parts, config.effective_memory)
    identity = {"store": opened.fingerprint or opened.location, **request.describe()}
    ledger = Ledger(target, identity, {part.name: part.rows for part in choice.parts})
    with _alone(target), draw_progress(progress, on_event, FILES) as listen:
        ledger.open(fresh)
        written = 0 if ledger.was_complete else _write(target, choice, ledger, block_bytes, listen)
    files = (*(part.name for part in choice.parts), *ledger.tables)
    return ExportReport(
        store=opened.location,
        folder=target,
        form=request.form,
        layout=request.layout,
        files=files,
        samples=sum(part.rows for part in choice.parts),
        written=written,
        bytes=sum((target / name).stat().st_size for name in files),
        seconds=time.perf_counter() - started,
    )


# -- before anything is written ----------------------------------------------------------------------------------


def _plan_memory(parts: Sequence[Part], limit: int) -> int:
    """Bytes of a block of samples. Raises DoesNotFit where not even one sample fits into *limit*."""
    largest = max(part.row_bytes for part in parts)
    needed = BASE_BYTES + 4 * largest
    if needed > limit:
        raise DoesNotFit(
            f"an export of these samples takes {format_bytes(needed)}, and may take {format_bytes(limit)}",
            hint="Give more: --memory 1GiB.",
            expected=needed,
            found=limit,
        )
    return max(largest, min(MAX_BLOCK_BYTES, (limit - BASE_BYTES) // 4))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the lock of the folder, which is made where it is missing. Raises StoreError where another holds it."""
    make_folder(folder)
    descriptor = open_folder(folder)
    try:
        is_free = True
        with suppress(OSError):  # a file system without locks
            is_free = try_lock(descriptor)
        if not is_free:
            raise StoreError(
                "another process exports to this folder", hint="Wait for it, or name another folder.", path=folder
            )
        yield
    finally:
        os.close(descriptor)


def _check_space(folder: Path, parts: Sequence[Part], ledger: Ledger) -> None:
    """Refuse an export of plain arrays that the disk cannot hold. Raises DoesNotFit."""
    left = sum((part.rows - ledger.count_done(part.name)) * part.row_bytes for part in parts)
    free = read_free_space(folder).bytes
    if parts[0].request.form in ("hdf5", "npy") and left > free:
        raise DoesNotFit(
            f"the files take {format_bytes(left)} more, and {format_bytes(free)} are free",
            hint="Take a region, or name a folder on a larger disk.",
            path=folder,
            expected=left,
            found=free,
        )


# -- writing -----------------------------------------------------------------------------------------------------


def _choose(dataset: xr.Dataset, request: Request) -> Choice:
    choose = choose_algonauts if request.layout == ALGONAUTS else choose_plain
    return choose(dataset, choose_samples(dataset, request), request)


def _write(folder: Path, choice: Choice, ledger: Ledger, block_bytes: int, listen: Listener) -> int:
    """Write what is missing; returns how many samples that was."""
    parts = choice.parts
    _check_space(folder, parts, ledger)
    left = {part.name: part.rows - ledger.count_done(part.name) for part in parts}
    finished = list(left.values()).count(0)
    listen(RunStarted(len(parts) - finished, sum(left.values()), parts[0].row_bytes, finished, step="exporting"))
    written = 0
    for number, part in enumerate(parts, 1):
        started, path = time.perf_counter(), folder / part.name
        make_folder(path.parent)
        with closing(_make_writer(folder, part)) as writer:
            rows = _write_part(part, writer, ledger, block_bytes, listen)
        written += rows
        if rows:
            seconds = time.perf_counter() - started
            listen(SessionDone(SessionNumber(number), path.stat().st_size, seconds, "trial by trial"))
    is_algonauts = parts[0].request.layout == ALGONAUTS
    ledger.complete(write_algonauts_tables(folder, choice) if is_algonauts else write_tables(folder, choice))
    return written


def _write_part(part: Part, writer: Writer, ledger: Ledger, block_bytes: int, listen: Listener) -> int:
    done = writer.start(ledger.count_done(part.name))
    step = max(1, block_bytes // part.row_bytes)
    for first in range(done, part.rows, step):
        last = min(first + step, part.rows)
        writer.write(first, part.read(first, last))
        if writer.keep():
            ledger.note(part.name, last)
        listen(TrialsDone(last - first))
    writer.finish()
    ledger.note(part.name, part.rows)
    return part.rows - done


def _make_writer(folder: Path, part: Part) -> Writer:
    from nsd_zarr.exports.matrix import Hdf5Writer, NpyWriter
    from nsd_zarr.exports.nifti import NiftiWriter
    from nsd_zarr.exports.parquet import ParquetWriter

    kinds: dict[str, Any] = {"hdf5": Hdf5Writer, "npy": NpyWriter, "parquet": ParquetWriter, "nifti": NiftiWriter}
    made: Writer = kinds[part.request.form](folder, part)
    return made
