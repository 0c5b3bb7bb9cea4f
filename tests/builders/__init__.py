"""What tests are made of: plain functions and dataclasses. Fixtures only give them their folder and their end.

sessions: session files of every kind, and h5py as their oracle
stores: small stores made of them, and what may be changed in a finished one
experiments: stores with trial table, masks, regions and statistics
subjects: roots of several subjects
stimuli: stimulus images and trial tables
runs: conversions that are watched, or stopped at a moment
examples: how many examples a property is tried on
commands: command lines, scripts and code, in this process or as their own
"""

from builders.commands import (
    REPOSITORY,
    Outcome,
    find_prefix_without_privileges,
    finish,
    run_cli,
    run_on_terminal,
    run_script,
    start_cli,
    start_code,
)
from builders.examples import ALL_EXAMPLES, scale_examples
from builders.experiments import MadeExperiment, add_experiment, make_shuffled_values, read_made_store
from builders.runs import (
    Recorder,
    count_renames,
    read_recorded_sessions,
    stop_at_change,
    stop_at_rename,
    watch_changes,
)
from builders.sessions import create_session, create_source, make_values, read_source
from builders.stimuli import (
    MadeImages,
    MadeSynthetic,
    create_images,
    create_stimuli,
    create_synthetic,
    create_trial_table,
)
from builders.stores import MadeStore, add_arrays, change_root, digest_tree, make_store
from builders.subjects import SUBJECT_SHAPES, MadeSubjects, create_subjects

__all__ = [
    "ALL_EXAMPLES",
    "REPOSITORY",
    "SUBJECT_SHAPES",
    "MadeExperiment",
    "MadeImages",
    "MadeStore",
    "MadeSubjects",
    "MadeSynthetic",
    "Outcome",
    "Recorder",
    "add_arrays",
    "add_experiment",
    "change_root",
    "count_renames",
    "create_images",
    "create_session",
    "create_source",
    "create_stimuli",
    "create_subjects",
    "create_synthetic",
    "create_trial_table",
    "digest_tree",
    "find_prefix_without_privileges",
    "finish",
    "make_shuffled_values",
    "make_store",
    "make_values",
    "read_made_store",
    "read_recorded_sessions",
    "read_source",
    "run_cli",
    "run_on_terminal",
    "run_script",
    "scale_examples",
    "start_cli",
    "start_code",
    "stop_at_change",
    "stop_at_rename",
    "watch_changes",
]
