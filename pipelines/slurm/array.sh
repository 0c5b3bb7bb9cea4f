#!/usr/bin/env bash
# A subject as an array job: PARTS tasks share the sessions out, a last job finishes. Run it on a login node:
#
#   pipelines/slurm/array.sh SOURCE STORE [options of nsd-zarr convert]
#
# SOURCE and STORE are on a disk that every node sees. Options that decide values or bytes (--codec, --sessions, ...) go to
# all tasks and to the last job alike: other ones are refused.
set -euo pipefail
PARTS=${PARTS:-40}        # one session each for a whole subject; more parts than sessions have nothing to do
AT_ONCE=${AT_ONCE:-10}    # tasks at the same time: what the disk carries
LOGS=${LOGS:-.}
command=$(printf '%q ' nsd-zarr convert "$@")

# The number of parts is written out. SLURM_ARRAY_TASK_COUNT is the number of tasks of *this* submission: it is another one
# when some of the tasks are sent again (sbatch --array=3,7), and nsd-zarr refuses a run that is divided otherwise.
# --requeue and --open-mode=append: a task that is preempted, or whose node dies, begins again and goes on where it was, and
# its log goes on as well. nsd-zarr takes cores and memory from the job's own limits.
job=$(sbatch --parsable --job-name=nsd-zarr --array="1-$PARTS%$AT_ONCE" --cpus-per-task=2 --mem=4G --time=1:00:00 \
  --requeue --open-mode=append --output="$LOGS/nsd-zarr-%A-%a.log" \
  --wrap "$command --part \$SLURM_ARRAY_TASK_ID/$PARTS")

# afterany rather than afterok: what a failed task has not done, the last job does itself, or says why it cannot.
finish=$(sbatch --parsable --job-name=nsd-zarr-finish --dependency="afterany:$job" --cpus-per-task=2 --mem=4G \
  --time=4:00:00 --requeue --open-mode=append --output="$LOGS/nsd-zarr-%j-finish.log" --wrap "$command")
echo "$job $finish"
