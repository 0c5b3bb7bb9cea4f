"""The tables of docs/scale.md, computed by what `nsd-zarr plan` computes with: `python docs/scale_tables.py`.

No session file is needed: shapes and numbers of sessions are the dataset's. tests/test_scale.py holds the page to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from nsd_zarr.conversion.estimate import rates
from nsd_zarr.conversion.estimate.estimate import Estimate, Machine, join_estimates, make_estimate
from nsd_zarr.conversion.estimate.prices import FREE, S3
from nsd_zarr.conversion.estimate.processor import count_processor_seconds
from nsd_zarr.conversion.estimate.work import LOCAL, End, Work
from nsd_zarr.conversion.memory import MemoryPlan, Need, make_memory_plan
from nsd_zarr.conversion.remote.fetching import plan_in_memory
from nsd_zarr.conversion.settings import Settings
from nsd_zarr.conversion.space import count_files, count_inodes, expect_bytes
from nsd_zarr.layout import Part, SessionNumber, choose_trials_per_shard, format_bytes, format_seconds
from nsd_zarr.nsd import BETAS_DATASET, SESSIONS_OF_SUBJECT, TRIALS_PER_SESSION
from nsd_zarr.simulate.subjects import SUBJECT_VOLUMES

VOLUMES_1MM = {
    1: (148, 186, 145),
    2: (150, 190, 146),
    3: (146, 190, 145),
    4: (143, 177, 152),
    5: (139, 173, 141),
    6: (148, 202, 152),
    7: (145, 170, 139),
    8: (139, 184, 143),
}
"""Shape (z, y, x) of each subject's volumes at 1 mm. Source: data manual, "Functional data (NSD)"."""
INDEX_BYTES_PER_VOXEL = 65.3
"""Of a session file beside its values: where its chunks, one a voxel, lie. A session of subject 1 at 1.8 mm with the
dataset's own chunks, 699,192 voxels, has 1,094,445,528 bytes, of which 1,048,788,000 are values."""
MEMORY_LIMIT_BYTES = 32 * 2**30
"""Assumed: what a machine lets a run take."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the work is done. All of it is assumed."""

    name: str
    nodes: int
    cores: int
    """Of each node."""
    disk_bytes_per_second: float
    """Of one disk that all nodes share."""
    source: End = LOCAL
    store: End = LOCAL


WORKSTATION = Place("one workstation", 1, 16, rates.DISK_BYTES_PER_SECOND)
SLURM = Place("8 Slurm nodes", 8, 8, 2 * rates.DISK_BYTES_PER_SECOND)
BUCKET = replace(WORKSTATION, name="from the bucket", source=End(True, FREE))
OWN_BUCKET = replace(WORKSTATION, name="from a bucket of one's own", source=End(True, S3))
TO_BUCKET = replace(WORKSTATION, name="to a bucket of one's own", store=End(True, S3))
CASES = {
    "one subject, 1.8 mm": ((1,), SUBJECT_VOLUMES),
    "one subject, 1 mm": ((1,), VOLUMES_1MM),
    "eight subjects, 1.8 mm": (tuple(SESSIONS_OF_SUBJECT), SUBJECT_VOLUMES),
    "eight subjects, 1 mm": (tuple(SESSIONS_OF_SUBJECT), VOLUMES_1MM),
}
"""Subjects and volumes of each case; of one subject, subject 1."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One subject's conversion at one place."""

    settings: Settings
    place: Place

    @property
    def value_bytes(self) -> int:
        """Bytes of values in one session."""
        return self.settings.geometry.trials_per_session * self.settings.geometry.trial_bytes

    @property
    def file_bytes(self) -> int:
        """Bytes of one session file."""
        return self.value_bytes + round(self.settings.geometry.voxels * INDEX_BYTES_PER_VOXEL)

    @property
    def memory(self) -> MemoryPlan:
        """How sessions share a node."""
        place, sessions = self.place, len(self._part)
        unsent = 3 if place.store.is_remote else 0
        need = Need(self.settings.geometry, by_offset=True, chunk_bytes=0, unsent_shards=unsent)
        here = make_memory_plan(need, sessions, place.cores, MEMORY_LIMIT_BYTES)
        if not place.source.is_remote:
            return here
        fetched = plan_in_memory(need, self.file_bytes, sessions, place.cores, MEMORY_LIMIT_BYTES)
        assert fetched is not None  # Else they would be fetched to a disk, which no table shows.
        assert fetched.passes == here.passes
        return fetched

    @property
    def _part(self) -> tuple[SessionNumber, ...]:
        """Sessions of the node that has most of them."""
        return tuple(Part(1, self.place.nodes).take(self.settings.sessions))

    def make_work(self, sessions: tuple[SessionNumber, ...]) -> Work:
        """The conversion of *sessions*."""
        files, out = (self.file_bytes,) * len(sessions), expect_bytes(self.settings, len(sessions))
        source, store, settings = self.place.source, self.place.store, self.settings
        fetched, sent = sum(files) * source.is_remote, out * store.is_remote
        values = self.value_bytes * len(sessions)
        processor = count_processor_seconds(values, settings.codec, settings.clevel, fetched, sent)
        written, inspected = count_files(self.settings), len(sessions)
        return Work(files, processor, out, written, source, store, self.memory.passes, inspected=inspected)

    def estimate(self) -> Estimate:
        """All sessions; as long as the node takes that has most of them, with its share of the disk."""
        place, memory = self.place, self.memory
        cores = min(place.cores, memory.sessions_at_once * memory.threads_per_session)
        node = Machine(cores, place.disk_bytes_per_second / place.nodes)
        whole = make_estimate(self.make_work(self.settings.sessions), node)
        return replace(whole, seconds=make_estimate(self.make_work(self._part), node).seconds)


def make_subjects(case: str, place: Place) -> list[Subject]:
    """Each subject of *case* at *place*."""
    numbers, volumes = CASES[case]
    return [Subject(make_settings(SESSIONS_OF_SUBJECT[number], volumes[number]), place) for number in numbers]


def make_settings(sessions: int, volume: tuple[int, int, int]) -> Settings:
    """The default settings of a store."""
    shape = (TRIALS_PER_SESSION, *volume)
    per_shard = choose_trials_per_shard(TRIALS_PER_SESSION, 2 * volume[0] * volume[1] * volume[2])
    numbers = tuple(SessionNumber(number) for number in range(1, sessions + 1))
    return Settings(BETAS_DATASET, numbers, per_shard, "lz4", 5, shape, "int16")


# -- tables -----------------------------------------------------------------------------------------------------


def make_sizes() -> Iterator[str]:
    """What each case is, wherever it is done."""
    yield "| | sessions | session files | values | store, about | shards | files | inodes, at most |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for case in CASES:
        subjects = make_subjects(case, WORKSTATION)
        counts = [len(each.settings.sessions) for each in subjects]
        pairs = list(zip(subjects, counts, strict=True))
        cells = [
            f"{sum(counts):,}",
            format_bytes(sum(each.file_bytes * count for each, count in pairs)),
            format_bytes(sum(each.value_bytes * count for each, count in pairs)),
            format_bytes(sum(expect_bytes(each.settings, count) for each, count in pairs)),
            f"{sum(each.settings.geometry.shards for each in subjects):,}",
            f"{sum(count_files(each.settings) for each in subjects):,}",
            f"{sum(count_inodes(each.settings, count) for each, count in pairs):,}",
        ]
        yield f"| {case} | {' | '.join(cells)} |"


def make_times(place: Place) -> Iterator[str]:
    """What each case takes at *place*."""
    yield f"| {place.name} | time, about | processor | disk | network | memory of a node | its sessions at once |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for case in CASES:
        subjects = make_subjects(case, place)
        found = join_estimates(each.estimate() for each in subjects)
        memory = max((each.memory for each in subjects), key=lambda plan: plan.peak_bytes)
        at_once = sorted({each.memory.sessions_at_once for each in subjects})
        cells = [
            format_seconds(found.seconds or 0),
            format_seconds(found.processor_seconds),
            format_seconds(found.disk_seconds / place.nodes),
            format_seconds(found.network_seconds) if found.network_seconds else "",
            format_bytes(memory.peak_bytes),
            "-".join(map(str, {at_once[0]: 0, at_once[-1]: 0})),
        ]
        yield f"| {case} | {' | '.join(cells)} |"


def make_requests() -> Iterator[str]:
    """Requests, bytes and their cost where one end is behind a URL."""
    yield "| | GET and HEAD | PUT, POST and LIST | fetched | sent | requests, USD | bytes out, USD |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for place in (BUCKET, OWN_BUCKET, TO_BUCKET):
        for case in CASES:
            found = join_estimates(each.estimate() for each in make_subjects(case, place))
            cells = [
                f"{found.requests.reads:,}",
                f"{found.requests.writes:,}",
                format_bytes(found.fetched_bytes) if found.fetched_bytes else "",
                format_bytes(found.sent_bytes) if found.sent_bytes else "",
                f"{found.request_dollars:.3f}",
                f"{found.egress_dollars:.2f}",
            ]
            yield f"| {case}, {place.name} | {' | '.join(cells)} |"


TABLES = {
    "sizes": make_sizes,
    **{place.name: lambda place=place: make_times(place) for place in (WORKSTATION, SLURM, BUCKET)},
    "requests": make_requests,
}
"""The tables of the page, in their order."""

if __name__ == "__main__":
    for make in TABLES.values():
        print("\n".join(make()), end="\n\n")
