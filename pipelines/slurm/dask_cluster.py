"""Convert on a Dask cluster whose workers are Slurm jobs, started and ended by dask-jobqueue as they are needed.

    pip install dask-jobqueue

    python pipelines/slurm/dask_cluster.py SOURCE STORE [--jobs 20] [--queue PARTITION]

SOURCE and STORE are on a disk that every node sees. Run it where it may run for long: in a job of its own, or in tmux.
"""

import argparse

from dask_jobqueue import SLURMCluster
from distributed import Client

import nsd_zarr


def main() -> None:
    """Start workers, convert, end the workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("store")
    parser.add_argument("--jobs", type=int, default=20, help="most jobs at a time")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--memory", default="4GiB", help="of each job")
    parser.add_argument("--interface", help="network interface between nodes, such as ib0")
    parser.add_argument("--prologue", action="append", default=[], help="a line before the worker, such as module load")
    parser.add_argument("--trials-per-shard", type=int)
    options = parser.parse_args()
    cluster = SLURMCluster(
        queue=options.queue,
        cores=2,
        processes=1,  # One process a job: nsd-zarr gives a worker one session at a time, with all of its threads.
        memory=options.memory,
        interface=options.interface,
        walltime="01:00:00",
        job_script_prologue=options.prologue,
        # Workers that end by themselves before Slurm ends their job lose no session.
        worker_extra_args=["--lifetime", "55m", "--lifetime-stagger", "4m"],
    )
    # From none to as many as there are sessions: every session is submitted at once, and workers come and go.
    with cluster, Client(cluster) as client:
        cluster.adapt(minimum_jobs=0, maximum_jobs=options.jobs)
        report = nsd_zarr.convert(
            options.source, options.store, scheduler=client, trials_per_shard=options.trials_per_shard
        )
    print(f"{report.store}: {len(report.sessions)} sessions, {report.trials} trials")


if __name__ == "__main__":
    main()
