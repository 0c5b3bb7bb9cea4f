"""Convert all subjects below an NSD root to one store, on a Dask cluster or in this process.

    python pipelines/convert_all_subjects.py NSD_ROOT STORE [--scheduler tcp://host:8786] [--memory 64GiB]

Makes STORE with a group for every subject that has session files: subj01 and so on. Run it again after any stop:
finished subjects are left as they are, the rest goes on. A subject that cannot be converted does not keep the others;
all that failed are told at the end. The cluster's workers must see NSD_ROOT and STORE under these paths; for Slurm
start it with dask-jobqueue's SLURMCluster and give its scheduler_address.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nsd_zarr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--space", default="func1pt8mm")
    parser.add_argument("--betas", default="betas_fithrf_GLMdenoise_RR")
    parser.add_argument("--scheduler")
    parser.add_argument("--memory")
    options = vars(parser.parse_args())

    root, store = options.pop("root"), options.pop("store")
    subjects = sorted(int(path.name[4:]) for path in root.glob("nsddata_betas/ppdata/subj[0-9][0-9]"))
    if not subjects:
        sys.exit(f"no subjects below {root}/nsddata_betas/ppdata")
    try:
        report = nsd_zarr.convert(root, store, subjects=subjects, **options)
    except nsd_zarr.NsdZarrError as error:
        if error.report is not None:
            show(error.report)
        sys.exit(str(error))
    show(report)


def show(report: nsd_zarr.ConversionReport) -> None:
    for part in report.parts:
        print(f"{part.trials} trials in {part.store}", flush=True)


if __name__ == "__main__":
    main()
