"""The whole story on synthetic data: simulate, plan, convert, verify, open, time one trial, draw it, say what next."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

import nsd_zarr
from nsd_zarr.cli.progress import show_progress
from nsd_zarr.cli.show import format_conversion, format_verification
from nsd_zarr.cli.terminal import note
from nsd_zarr.errors import DamageFound, MissingLibrary
from nsd_zarr.layout import COUNTS_PER_PERCENT
from nsd_zarr.nsd import BETAS_DATASET

DEMO_SHAPE = (750, 41, 52, 40)
"""Half of subject 1's resolution along each axis: the difference is felt, and it is made in seconds."""
TIMED_TRIALS = 50
EXPECTED = "About 20 seconds on two cores, and 600 MB of disk"
"""Of the whole demo: 24 s of processor time, 586 MB. `time nsd-zarr demo` repeats it."""
PICTURE = "demo.png"


@contextmanager
def show_steps(verb: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A callback for (done, total) steps, shown as a bar on a terminal, elsewhere as a line at the end of each step."""
    if quiet or not sys.stderr.isatty():
        yield (lambda done, total: None) if quiet else (lambda done, total: note(f"{verb}: {done} of {total}"))
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def run_demo(directory: Path, say: Callable[[str], None], quiet: bool) -> None:
    """Run the story in *directory*, saying each command before it is done. Raises DamageFound if the proof fails."""
    from nsd_zarr.simulate import Simulation, simulate_root

    shape = ",".join(map(str, DEMO_SHAPE))
    say(f"{EXPECTED}: sessions are simulated, converted and proved, and a picture is drawn.\n")
    say(f"$ nsd-zarr simulate {directory} --sessions 3 --shape {shape}")
    with show_steps("simulating", quiet) as on_progress:
        root = simulate_root(directory, Simulation(sessions=3, shape=DEMO_SHAPE), on_progress)
    store = directory / "subj01.zarr"
    _convert(root.betas_folder, store, say, quiet)
    _time_one_trial(root.session_files[1], store, say)
    _draw(store, directory / PICTURE, say)
    say(
        f'\nNext, in Python:\n  import nsd_zarr\n  ds = nsd_zarr.open_dataset("{store}")\n'
        "  ds.betas[750].values                      # one trial, float32 percent signal change, (z, y, x)\n"
        "  from nsd_zarr.torch import TrialDataset   # for PyTorch's DataLoader\n"
        "With your own data:\n  nsd-zarr plan FOLDER_WITH_BETAS subj01.zarr\n"
        f"Remove the demo with: rm -r {directory}"
    )


def _draw(store: Path, picture: Path, say: Callable[[str], None]) -> None:
    """Save a picture of the store's noise ceiling, which is what one models; opens nothing."""
    dataset = nsd_zarr.open_dataset(store)
    try:
        figure = dataset.nsd.plot(dataset.nsd.noise_ceiling(3), title="noise ceiling of simulated betas")
    except MissingLibrary as error:
        say(f"\nno picture: {error}")
        return
    figure.savefig(picture)
    say(f"\nA picture of it, the part of each voxel's responses that a model could explain: {picture}")


def _convert(source: Path, store: Path, say: Callable[[str], None], quiet: bool) -> None:

    say(f"\n$ nsd-zarr plan {source} {store}")
    say(str(nsd_zarr.plan(source, store)))
    say(f"\n$ nsd-zarr convert {source} {store}")
    with show_progress(quiet) as on_event:
        say(format_conversion(nsd_zarr.convert(source, store, on_event=on_event)))
    say(f"\n$ nsd-zarr verify {store}")
    with show_progress(quiet) as on_event:
        report = nsd_zarr.verify(store, on_event=on_event)
    say(format_verification(report))
    if not report.is_whole:
        raise DamageFound("the demo's store is damaged", hint="Check this machine's disk and memory.", path=store)


def _time_one_trial(session_file: Path, store: Path, say: Callable[[str], None]) -> None:
    import h5py

    with h5py.File(session_file, "r") as file:
        started = time.perf_counter()
        expected = file[BETAS_DATASET][0]
        from_hdf5 = time.perf_counter() - started
    dataset = nsd_zarr.open_dataset(store)
    trials = np.random.default_rng(0).integers(0, dataset.sizes["trial"], TIMED_TRIALS).tolist()
    seconds = []
    for trial in trials:
        started = time.perf_counter()
        dataset.betas[trial].values  # noqa: B018 - reading is what is timed
        seconds.append(time.perf_counter() - started)
    same = np.array_equal(dataset.betas[DEMO_SHAPE[0]].values, np.float32(expected) / np.float32(COUNTS_PER_PERCENT))
    say(
        f"\none trial from {session_file.name}: {from_hdf5:.2f} s\n"
        f"one random trial from the store, float32: {1000 * median(seconds):.2f} ms "
        f"({from_hdf5 / median(seconds):,.0f} times faster), values {'equal' if same else 'DIFFER'}"
    )
    if not same:
        raise DamageFound("a trial of the demo's store differs from its source", path=store)
