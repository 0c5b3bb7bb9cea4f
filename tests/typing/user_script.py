"""What somebody writes who uses the public face, held to its types; tests/typing/test_user_script.py runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import xarray as xr

import nsd_zarr

LIMITS: nsd_zarr.VerifyOptions = {"subject": 1, "workers": 2, "memory": "1GiB"}


def show(event: nsd_zarr.Event) -> None:
    if isinstance(event, nsd_zarr.RunStarted):
        print(event.sessions, event.trials)
    elif isinstance(event, nsd_zarr.SessionDone):
        print(f"session {event.session:02d}: {event.seconds:.1f} s, read {event.how}")
    elif isinstance(event, nsd_zarr.WaitingForWorkers):
        print(f"no worker for {event.seconds:.0f} s")
    elif isinstance(event, nsd_zarr.TrialsRead):
        print("read", event.trials)
    else:
        print("done", event.trials)


def convert(root: Path, store: Path) -> nsd_zarr.ConversionReport:
    plan: nsd_zarr.Plan = nsd_zarr.plan(root, store, subject=1, memory="1GiB", trials_per_shard=None)
    print(plan, plan.bytes_in, plan.memory.peak_bytes, len(plan.todo))
    listen: nsd_zarr.Listener = show
    return nsd_zarr.convert(root, store, subject=1, codec="zstd", sessions="1-2", on_event=listen, progress=True)


def prove(root: Path, store: Path) -> tuple[nsd_zarr.Damage, ...]:
    report = nsd_zarr.verify(store, [root], **LIMITS)
    repaired: nsd_zarr.RepairReport = nsd_zarr.repair(store, root, sessions=[1, 2], subject=1)
    attached: nsd_zarr.AttachReport = nsd_zarr.attach(store, root, subject=1, space="func1pt8mm")
    print(repaired.is_whole, attached.experiment.found, report.is_whole)
    return report.damages


def look(store: Path) -> float:
    dataset: xr.Dataset = nsd_zarr.open_dataset(store, chunks={})
    return float(dataset.betas[0].mean())


def main(folder: Path) -> int:
    try:
        report = convert(folder / "nsd", folder / "subj01.zarr")
        damages = prove(folder / "nsd", folder / "subj01.zarr")
        for damage in damages:
            print(damage.session, damage.trials, damage.problem)
        print(report.trials, look(folder / "subj01.zarr"))
    except (nsd_zarr.ConfigError, nsd_zarr.SourceError) as error:
        print(error.path, error.hint)
        return error.exit_code
    except nsd_zarr.NsdZarrError as error:
        return error.exit_code
    return len(damages)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
