"""Convert one subject, prove the store, and look at a trial: the whole way in Python.

    python pipelines/convert_subject.py SOURCE STORE [--config configs/convert.yaml]

SOURCE as for nsd-zarr convert. Run it again after any stop: it goes on.
"""

from __future__ import annotations

import argparse
import sys

import nsd_zarr


def show(event: nsd_zarr.Event) -> None:
    if isinstance(event, nsd_zarr.SessionDone):
        print(f"session {event.session:02d}: {event.seconds:.1f} s, read {event.how}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("store")
    parser.add_argument("--config")
    options = parser.parse_args()

    report = nsd_zarr.convert(options.source, options.store, config=options.config, on_event=show)
    print(f"{report.trials} trials, {report.bytes_in / report.bytes_out:.2f} times smaller, {report.seconds:.1f} s")

    proof = nsd_zarr.verify(options.store)
    if not proof.is_whole:
        sys.exit("\n".join(map(str, proof.damages)))

    dataset = nsd_zarr.open_dataset(options.store)
    trial = dataset.betas[0]
    print(f"session {int(trial.session)}, trial {int(trial.trial_in_session)}: ", end="")
    print(f"{float(trial.min()):.2f} to {float(trial.max()):.2f} percent signal change")


if __name__ == "__main__":
    main()
