"""Convert all subjects below an NSD root, on a Dask cluster or in this process.

    python pipelines/convert_all_subjects.py NSD_ROOT FOLDER [--scheduler tcp://host:8786] [--memory 64GiB]

Makes FOLDER/subj01.zarr and so on, for every subject that has the betas asked for. Run it again after any stop:
finished subjects are left as they are, the rest goes on. A subject that cannot be converted is told at the end and
does not keep the others. The cluster's workers must see NSD_ROOT and FOLDER under these paths; for Slurm start it with
dask-jobqueue's SLURMCluster and give its scheduler_address.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import nsd_zarr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--space", default="func1pt8mm")
    parser.add_argument("--betas", default="betas_fithrf_GLMdenoise_RR")
    parser.add_argument("--scheduler")
    parser.add_argument("--memory")
    options = parser.parse_args()

    failures = []
    subjects = sorted(int(path.name[4:]) for path in options.root.glob("nsddata_betas/ppdata/subj[0-9][0-9]"))
    for subject in subjects:
        try:
            report = nsd_zarr.convert(
                options.root,
                options.folder / f"subj{subject:02d}.zarr",
                subject=subject,
                space=options.space,
                betas=options.betas,
                scheduler=options.scheduler,
                memory=options.memory,
            )
            print(f"subject {subject}: {report.trials} trials in {report.store}", flush=True)
        except nsd_zarr.NsdZarrError as error:
            failures.append(f"subject {subject}: {error}")
    if failures or not subjects:
        sys.exit("\n".join(failures) or f"no subjects below {options.root}/nsddata_betas/ppdata")


if __name__ == "__main__":
    main()
