"""Estimates: the arithmetic against counting one by one, and what plan says of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nsd_zarr
from nsd_zarr.conversion.estimate import rates
from nsd_zarr.conversion.estimate.estimate import Machine, join_estimates, make_estimate
from nsd_zarr.conversion.estimate.planned import make_work
from nsd_zarr.conversion.estimate.prices import FREE, S3
from nsd_zarr.conversion.estimate.processor import count_processor_seconds
from nsd_zarr.conversion.estimate.requests import Requests, count_source_requests, count_store_requests
from nsd_zarr.conversion.estimate.work import LOCAL, End, Work
from nsd_zarr.layout import Part
from nsd_zarr.places.objects.fetch import count_ranges
from nsd_zarr.simulate import Simulation, simulate_root

REMOTE = End(True, S3)
ENDS = st.sampled_from([LOCAL, REMOTE, End(True, FREE), End(True, None)])
SIZES = st.lists(st.integers(1, 10**11), min_size=1, max_size=50).map(tuple)


@st.composite
def works(draw):
    sizes = draw(SIZES)
    return Work(
        file_bytes=sizes,
        processor_seconds=draw(st.floats(0, 1e6)),
        store_bytes=draw(st.integers(0, 10**13)),
        store_files=draw(st.integers(0, 10**5)),
        source=draw(ENDS),
        store=draw(ENDS),
        passes=draw(st.integers(1, 5)),
        is_fetched_to_disk=draw(st.booleans()),
        inspected=len(sizes) + draw(st.integers(0, 9)),
        inputs=draw(st.integers(0, 99)),
    )


MACHINES = st.builds(Machine, st.integers(1, 128), st.floats(1e6, 1e11), st.floats(1e6, 1e11))


# -- arithmetic --------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**11))
def test_ranges_of_an_object_are_those_that_cover_it_one_by_one(size):
    left, ranges = size, 0
    while left > 0 or not ranges:
        left, ranges = left - 16_777_216, ranges + 1
    assert count_ranges(size) == ranges


@given(SIZES, st.integers(0, 9), st.integers(0, 99))
def test_requests_of_a_source_are_those_of_each_step(sizes, done, inputs):
    asked = {"GET": 0, "HEAD": 0, "LIST": 0}
    for _ in range(2):  # planned before and under the lock
        asked["LIST"] += 4
        for _ in range(len(sizes) + done):
            asked["HEAD"] += 1
            asked["GET"] += 1
    for size in sizes:
        asked["GET"] += count_ranges(size)
        asked["HEAD"] += 1
    reads = asked["GET"] + asked["HEAD"]
    assert count_source_requests(sizes, len(sizes) + done) == Requests(reads, asked["LIST"])
    assert count_source_requests(sizes, len(sizes) + done, inputs).reads == reads + (2 + 2) * inputs  # looks, reads


@given(st.integers(0, 9999), st.integers(0, 99))
def test_requests_of_a_store_grow_by_one_a_file_and_with_the_time_that_a_lock_is_held(files, sessions):
    fewest, more = count_store_requests(files, sessions, 0.0), count_store_requests(files + 1, sessions, 100.0)
    assert fewest.writes >= files + sessions
    assert more.writes - fewest.writes == 1 + 50 + 100  # a beat every two seconds, a look every second
    assert more.reads == fewest.reads


@given(works())
def test_bytes_of_disk_and_line_are_those_that_each_step_moves(work):
    disk = fetched = sent = 0
    for size in work.file_bytes:
        if work.source.is_remote:
            fetched += size
            disk += size if work.is_fetched_to_disk else 0  # written once
        on_disk = not work.source.is_remote or work.is_fetched_to_disk
        for _ in range(work.passes):
            disk += size if on_disk else 0
    if work.store.is_remote:
        sent = work.store_bytes
    else:
        disk += work.store_bytes
    assert (work.disk_bytes, work.fetched_bytes, work.sent_bytes) == (disk, fetched, sent)


@given(works(), MACHINES)
def test_time_is_the_start_and_what_takes_longest(work, machine):
    found = make_estimate(work, machine)
    assert found.seconds - 1 == pytest.approx(
        max(
            work.processor_seconds / machine.cores,
            work.disk_bytes / machine.disk_bytes_per_second,
            work.fetched_bytes / machine.network_bytes_per_second,
            work.sent_bytes / machine.network_bytes_per_second,
        )
    )
    assert found.processor_seconds == pytest.approx(1 + work.processor_seconds)


@given(works(), MACHINES, st.integers(1, 8))
def test_more_cores_never_take_longer(work, machine, times):
    more = replace(machine, cores=machine.cores * times)
    assert make_estimate(work, more).seconds <= make_estimate(work, machine).seconds


@given(works())
def test_without_cores_there_is_no_time(work):
    found = make_estimate(work, Machine(None))
    assert found.seconds is None
    assert "of all workers together" in next(found.format_lines())


@given(st.lists(works(), min_size=1, max_size=8), MACHINES)
def test_several_conversions_take_the_sum_of_each(several, machine):
    found = [make_estimate(work, machine) for work in several]
    joined = join_estimates(found)
    for name in ("sessions", "seconds", "processor_seconds", "disk_bytes", "fetched_bytes", "sent_bytes"):
        assert getattr(joined, name) == pytest.approx(sum(getattr(each, name) for each in found))
    assert joined.requests.reads == sum(each.requests.reads for each in found)
    assert (joined.request_dollars is None) == any(each.request_dollars is None for each in found)


def test_processor_of_a_session_with_lz4_is_what_was_measured():
    # 2.7 s for 1.05 GB of values in files that were not cached.
    assert count_processor_seconds(1_048_788_000, "lz4", 5) == pytest.approx(2.7, abs=0.1)
    assert count_processor_seconds(10**9, "zstd", 3) - count_processor_seconds(10**9, "zstd", 0) == pytest.approx(4.7)


def test_cost_of_a_subject_by_the_list_price_of_s3():
    # Forty objects of 66 ranges at 0.0004 a thousand, 43.78 GB at 0.09 each.
    work = Work((1_094_445_528,) * 40, 0.0, 10**9, 9, source=REMOTE, inspected=40)
    found = make_estimate(work, Machine(2))
    assert found.requests == Requests(40 * (66 + 4 + 1), 8)
    assert found.request_dollars == pytest.approx(2840 * 0.0004 / 1000 + 8 * 0.005 / 1000)
    assert found.egress_dollars == pytest.approx(43.778 * 0.09, abs=0.001)


@pytest.mark.parametrize(
    ("prices", "words"),
    [
        (FREE, "nothing: requests without an account"),
        (None, "by the prices of whoever runs the server"),
        (S3, "less than 0.01 USD by S3's list price of 2026-11, for the owner of the bucket; 3.94 more where"),
    ],
)
def test_cost_says_who_pays_by_which_prices(prices, words):
    work = Work((1_094_445_528,) * 40, 0.0, 10**9, 9, source=End(True, prices), inspected=40)
    lines = list(make_estimate(work, Machine(2)).format_lines())
    assert lines[1] == "requests    2,840 GET and HEAD, 8 PUT, POST and LIST; 43.8 GB fetched"
    assert lines[2].startswith(f"cost        {words}")


def test_rates_of_every_codec_are_known():
    from nsd_zarr.config import CODECS

    assert set(rates.ENCODE_SECONDS_PER_GB) == set(CODECS)


# -- what plan says ----------------------------------------------------------------------------------------------


def test_plan_prints_what_the_estimate_says(source, tmp_path, run_cli):
    plan = nsd_zarr.plan(source, tmp_path / "subj01.zarr", trials_per_shard=2)
    (line,) = plan.estimate.format_lines()
    words = ("plan", source, tmp_path / "subj01.zarr", "--trials-per-shard", 2)
    assert line in run_cli(*words).out.splitlines()
    assert run_cli(*words, "--json").json["estimate"] == plan.estimate.as_dict()


def test_plan_of_large_sessions_says_processor_and_disk(source, tmp_path):
    plan = nsd_zarr.plan(source, tmp_path / "subj01.zarr", workers=1)
    large = replace(make_work(plan), file_bytes=(10**9,) * 40, processor_seconds=92.0, store_bytes=20 * 10**9)
    (line,) = make_estimate(large, Machine(2)).format_lines()
    assert line == "time        about 61 s on 2 cores: processor 93 s, disk 60 s at 1 GB/s"


def test_work_of_a_plan_has_files_values_and_store(source, tmp_path):
    plan = nsd_zarr.plan(source, tmp_path / "subj01.zarr", trials_per_shard=2, workers=1)
    work = make_work(plan)
    assert work.file_bytes == tuple(path.stat().st_size for path in sorted(source.iterdir()))
    assert work.processor_seconds == pytest.approx(count_processor_seconds(18 * 770, "lz4", 5))
    assert (work.store_bytes, work.store_files) == (plan.space.expected_bytes, plan.space.files)
    assert (work.source, work.store, work.inspected, work.inputs) == (LOCAL, LOCAL, 3, 0)


def test_parts_share_the_work_of_the_whole(source, tmp_path):
    whole = make_work(nsd_zarr.plan(source, tmp_path / "subj01.zarr"))
    plans = [nsd_zarr.plan(source, tmp_path / "subj01.zarr", part=f"{number}/2") for number in (1, 2)]
    parts = [make_work(plan) for plan in plans]
    assert [len(part.file_bytes) for part in parts] == [2, 1]
    assert sum(part.store_bytes for part in parts) == pytest.approx(whole.store_bytes, abs=1)
    assert sum(part.processor_seconds for part in parts) == pytest.approx(whole.processor_seconds)
    assert "\ntime        part 2/2: about " in str(plans[1])
    assert plans[1].part == Part(2, 2)


def test_sessions_that_are_done_are_not_counted(source, interrupt):
    store = interrupt(source, at_trial=9)
    plan = nsd_zarr.plan(source, store, trials_per_shard=2)
    work = make_work(plan)
    assert (len(work.file_bytes), work.inspected) == (2, 3)
    # Three shards and two statistics of the first session are there.
    assert work.store_files == plan.space.files - 5


def test_finished_store_takes_no_time(source, convert):
    plan = nsd_zarr.plan(source, convert(source), trials_per_shard=2)
    assert plan.estimate.sessions == 0
    assert "\ntime " not in str(plan)


def test_packed_nifti_takes_more_than_offsets(tmp_path):
    root = simulate_root(tmp_path / "nsd", Simulation(sessions=2, shape=(12, 7, 5, 3), forms=("hdf5", "nifti"))).root
    plain, packed = (
        make_work(nsd_zarr.plan(root, tmp_path / "a.zarr", form=form, space="func1pt8mm")) for form in ("hdf5", "nifti")
    )
    more = packed.processor_seconds - plain.processor_seconds
    assert more == pytest.approx(2 * 12 * 210 / 1e9 * 2.8)


def test_what_is_read_through_the_library_takes_more_than_offsets(source, tmp_path, make_session):
    plain = make_work(nsd_zarr.plan(source, tmp_path / "a.zarr"))
    for number in (1, 2, 3):
        make_session(number, folder="packed", layout="gzip")
    packed = make_work(nsd_zarr.plan(tmp_path / "packed", tmp_path / "a.zarr"))
    assert packed.processor_seconds - plain.processor_seconds == pytest.approx(18 * 770 / 1e9 * 4.3)


def test_cluster_is_told_processor_seconds_alone(source, tmp_path):
    plan = nsd_zarr.plan(source, tmp_path / "subj01.zarr", scheduler="tcp://127.0.0.1:8786")
    assert plan.estimate.seconds is None
    assert "\ntime        about 1 s of processor, of all workers together" in str(plan)


def test_plan_of_several_subjects_sums_theirs(subjects, tmp_path):
    plan = nsd_zarr.plan(subjects.root, tmp_path / "nsd.zarr", subjects="1-2", workers=1)
    each = [one.estimate for one in plan.plans.values()]
    assert plan.estimate == join_estimates(each)
    assert plan.as_dict()["estimate"]["sessions"] == 6
    assert str(plan).splitlines()[-1].startswith("all time    about 2 s on 1 core: processor 2 s, disk less than 1 s")
