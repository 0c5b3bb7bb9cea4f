"""The memory plan: within the limit by arithmetic, and the arithmetic held against a real conversion."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from nsd_zarr.conversion.memory import BASE_BYTES, LEAST_SPARED_BYTES, Need, hold_less, make_memory_plan
from nsd_zarr.errors import DoesNotFit
from nsd_zarr.layout import Geometry

pytestmark = pytest.mark.xdist_group("memory")

MIB = 2**20


@st.composite
def needs(draw):
    trials_per_shard, shards = draw(st.integers(1, 50)), draw(st.integers(1, 30))
    volume = draw(st.sampled_from([(1,), (5, 7, 11), (81, 104, 83), (100, 150, 150), (227_021,)]))
    dtype = draw(st.sampled_from(["int16", "float32", "float64"]))
    geometry = Geometry((1,), trials_per_shard * shards, trials_per_shard, volume, dtype)
    return Need(geometry, draw(st.booleans()), draw(st.integers(0, 2**31)))


counts = st.integers(1, 40)
limits = st.integers(1, 64 * 1024).map(lambda mebibytes: mebibytes * MIB)
REFERENCE = Need(Geometry((1,), 750, 25, (100, 150, 150), "int16"), by_offset=True, chunk_bytes=0)
SINGLE_TRIAL_SHARDS = Need(Geometry((1,), 750, 1, (100, 150, 150), "int16"), by_offset=True, chunk_bytes=0)


@given(needs(), counts, counts, limits)
def test_plan_stays_within_the_limit_or_is_refused(need, sessions, workers, limit):
    plan = _plan_or_refusal(need, sessions, workers, limit)
    if isinstance(plan, DoesNotFit):
        assert plan.found == limit < plan.expected
        return
    assert 0 < plan.peak_bytes <= limit
    assert plan.peak_bytes == BASE_BYTES + plan.sessions_at_once * need.session_bytes(
        plan.trials_per_pass, plan.threads_per_session
    )


@given(needs(), counts, counts, limits)
def test_passes_of_whole_shards_cover_each_session_once(need, sessions, workers, limit):
    plan = _try_plan(need, sessions, workers, limit)
    trials = need.geometry.trials_per_session
    assert plan.trials_per_pass % need.geometry.trials_per_shard == 0
    assert (plan.passes - 1) * plan.trials_per_pass < trials <= plan.passes * plan.trials_per_pass


@given(needs(), counts, counts, limits)
def test_threads_and_sessions_are_no_more_than_there_are(need, sessions, workers, limit):
    plan = _try_plan(need, sessions, workers, limit)
    assert 1 <= plan.sessions_at_once <= sessions
    assert 1 <= plan.threads_per_session <= workers
    assert plan.sessions_at_once * (plan.threads_per_session - 1) < workers


@given(needs(), counts, counts, limits)
def test_what_is_read_in_order_is_read_once_whatever_the_memory(need, sessions, workers, limit):
    need = replace(need, in_order=True)
    plan = _try_plan(need, sessions, workers, limit)
    held, shard = plan.trials_per_pass, need.geometry.trials_per_shard
    assert plan.passes == 1
    assert held % shard == 0
    assert shard <= held <= min(need.geometry.trials_per_session, (plan.threads_per_session + 1) * shard)
    assert plan.peak_bytes <= limit
    assert plan.peak_bytes == BASE_BYTES + plan.sessions_at_once * need.session_bytes(held, plan.threads_per_session)


@given(needs(), counts, counts, limits, limits)
@example(SINGLE_TRIAL_SHARDS, 1, 40, 507 * MIB, MIB)
def test_more_memory_never_means_more_passes(need, sessions, workers, limit, more):
    less_memory = _try_plan(need, sessions, workers, limit)
    assert make_memory_plan(need, sessions, workers, limit + more).passes <= less_memory.passes


@given(needs(), counts, counts)
def test_refusal_names_the_memory_that_suffices(need, sessions, workers):
    with pytest.raises(DoesNotFit) as caught:
        make_memory_plan(need, sessions, workers, MIB)
    least = caught.value.expected
    assert make_memory_plan(need, sessions, workers, least).trials_per_pass == need.geometry.trials_per_shard
    with pytest.raises(DoesNotFit):
        make_memory_plan(need, sessions, workers, least - 1)
    proposed = int(caught.value.hint.partition("--memory ")[2].partition("MiB")[0])
    assert make_memory_plan(need, sessions, workers, proposed * MIB).passes >= 1


@given(needs(), counts, counts, limits)
def test_files_in_the_page_cache_are_read_in_passes_of_whole_shards_that_spare_memory(need, sessions, workers, limit):
    plan = _try_plan(need, sessions, workers, limit)
    less = hold_less(plan, need)
    geometry, held = need.geometry, less.trials_per_pass
    assert held % geometry.trials_per_shard == 0
    assert (less.passes - 1) * held < geometry.trials_per_session <= less.passes * held
    assert less.peak_bytes == BASE_BYTES + less.sessions_at_once * need.session_bytes(held, less.threads_per_session)
    if less != plan:
        assert need.by_offset
        assert plan.passes == 1 < less.passes <= 3
        assert plan.peak_bytes - less.peak_bytes >= LEAST_SPARED_BYTES
        assert held // geometry.trials_per_shard % less.threads_per_session == 0


@pytest.mark.parametrize(("volume", "passes", "held"), [((81, 104, 83), 2, 450), ((148, 186, 145), 3, 300)])
def test_a_session_of_the_dataset_is_read_in_few_passes_where_it_is_cached(volume, passes, held):
    need = Need(Geometry((1,), 750, 75, volume, "int16"), True, 0)
    plan = make_memory_plan(need, 3, 2, 8 * 1024 * MIB)
    less = hold_less(plan, need)
    assert (plan.passes, plan.trials_per_pass) == (1, 750)
    assert (less.passes, less.trials_per_pass) == (passes, held)
    assert hold_less(less, REFERENCE) == less


def _plan_or_refusal(need, sessions, workers, limit):
    try:
        return make_memory_plan(need, sessions, workers, limit)
    except DoesNotFit as error:
        return error


def _try_plan(need, sessions, workers, limit):
    plan = _plan_or_refusal(need, sessions, workers, limit)
    assume(not isinstance(plan, DoesNotFit))
    return plan


def test_reference_session_takes_one_pass_in_8_gib_and_several_in_2():
    assert make_memory_plan(REFERENCE, 3, 2, 8 * 1024 * MIB).passes == 1
    assert make_memory_plan(REFERENCE, 3, 2, 2 * 1024 * MIB).passes == 2
    assert make_memory_plan(REFERENCE, 3, 16, 2 * 1024 * MIB).threads_per_session == 13


def test_sessions_run_side_by_side_where_memory_and_threads_allow():
    assert make_memory_plan(REFERENCE, 8, 8, 64 * 1024 * MIB).sessions_at_once == 4
    assert make_memory_plan(REFERENCE, 2, 8, 64 * 1024 * MIB).sessions_at_once == 2
    assert make_memory_plan(REFERENCE, 8, 8, 8 * 1024 * MIB).sessions_at_once == 2


def test_streams_run_side_by_side_with_one_thread_each_because_each_has_one_more_that_reads():
    two = make_memory_plan(replace(REFERENCE, in_order=True), 8, 2, 8 * 1024 * MIB)
    assert (two.sessions_at_once, two.threads_per_session) == (2, 1)
    assert make_memory_plan(REFERENCE, 8, 2, 8 * 1024 * MIB).sessions_at_once == 1


@pytest.mark.parametrize("command", ["plan", "convert"])
def test_memory_that_is_too_small_is_refused_with_what_suffices(command, source, tmp_path, check_refused):
    paragraph = check_refused(6, command, source, tmp_path / "subj01.zarr", "--memory", "64MiB")
    assert paragraph.startswith("memory: 67.1 MB allowed, and one shard of 6 trials needs 16")
    assert "--memory 161MiB" in paragraph


# -- measured ----------------------------------------------------------------------------------------------------

# Converts, while a thread looks every 2 ms at what the process has of anonymous and shared memory.
MEASURE = """
import json, sys, threading
import nsd_zarr
from nsd_zarr.config import make_config
from nsd_zarr.conversion.plan import make_plan

source, store, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
plan = make_plan(source, store, make_config(**options))
stop, peak = threading.Event(), 0

def watch():
    global peak
    while not stop.wait(0.002):
        with open("/proc/self/status") as file:
            held = [int(line.split()[1]) for line in file if line.startswith(("RssAnon", "RssShmem"))]
        peak = max(peak, 1024 * sum(held))

thread = threading.Thread(target=watch)
thread.start()
nsd_zarr.convert(source, store, **options)
stop.set()
thread.join()
print(json.dumps([plan.memory.peak_bytes, peak, plan.memory.passes, plan.memory.sessions_at_once]))
"""


@pytest.fixture(scope="module")
def create_rows(tmp_path_factory):
    """Write sessions of 750 trials as rows of one voxel, past the chunk cache."""

    def create(shape, dtype="<i2", sessions=(1,)):
        folder = tmp_path_factory.mktemp("large")
        rows = np.random.default_rng(3).integers(-999, 999, (61, 750), "<i2")
        for session in sessions:
            with h5py.File(folder / f"betas_session{session:02d}.hdf5", "w", libver="earliest") as file:
                data = file.create_dataset("betas", (750, *shape), dtype, chunks=(750, 1, 1, 1))
                for number, place in enumerate(np.ndindex(*shape)):
                    data.id.write_direct_chunk((0, *place), rows[number % 61])
        return folder

    return create


@pytest.fixture(scope="module")
def large_source(create_rows):
    """Two sessions of 180 MB in the dataset's own layout."""
    return create_rows((40, 50, 60), sessions=(1, 2))


def _measure(source, store, **options):
    """Planned and measured peak in bytes, passes, sessions at once."""
    words = [str(source), str(store), json.dumps(options)]
    done = subprocess.run([sys.executable, "-c", MEASURE, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "passes", "at_once"),
    [
        ({"sessions": "1", "memory": "1GiB"}, 1, 1),
        ({"memory": "1GiB"}, 1, 2),
        ({"memory": "245MiB", "trials_per_shard": 75}, 3, 1),
    ],
    ids=["one pass", "side by side", "three passes"],
)
def test_measured_peak_is_below_the_planned_one_and_not_far(options, passes, at_once, large_source, tmp_path):
    planned, measured, *shape = _measure(large_source, tmp_path / "subj01.zarr", workers=4, **options)
    assert shape == [passes, at_once]
    assert measured <= planned <= 2.5 * measured


@pytest.mark.slow
def test_measured_peak_of_rows_read_through_h5py_in_passes_is_below_the_planned_one(create_rows, tmp_path):
    source = create_rows((20, 50, 60), dtype=">i2")
    planned, measured, *shape = _measure(
        source, tmp_path / "subj01.zarr", workers=1, memory="420MiB", trials_per_shard=25
    )
    assert shape == [2, 1]
    assert measured <= planned


@pytest.mark.slow
@pytest.mark.parametrize(("memory", "sessions"), [("1GiB", 1), ("245MiB", 1), ("1GiB", 2)])
def test_measured_peak_of_a_stream_is_below_the_planned_one_and_it_is_read_once(memory, sessions, tmp_path):
    trials = np.random.default_rng(3).integers(-999, 999, (10, 40, 50, 60), "<i2")
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(np.int16)
    header.set_data_shape((60, 50, 40, 750))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    source = tmp_path / "betas_session01.nii.gz"
    with gzip.open(source, "wb", 1) as file:
        file.write(header.binaryblock.ljust(352, b"\0"))
        for trial in range(750):
            file.write(trials[trial % 10])
    for session in range(2, sessions + 1):
        shutil.copyfile(source, tmp_path / f"betas_session{session:02d}.nii.gz")
    planned, measured, *shape = _measure(tmp_path, tmp_path / "s.zarr", workers=4, memory=memory, trials_per_shard=75)
    assert shape == [1, sessions]
    assert measured <= planned <= 2.5 * measured
