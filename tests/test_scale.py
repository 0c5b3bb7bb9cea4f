"""docs/scale.md: its tables are what the package computes, and that is what one counts by hand."""

from __future__ import annotations

import importlib
import re
from math import ceil, prod
from pathlib import Path

import pytest

from nsd_zarr.conversion.estimate import rates
from nsd_zarr.nsd import SESSIONS_OF_SUBJECT

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "scale.md").read_text()


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    return importlib.import_module("scale_tables")


def test_tables_of_the_page_are_those_that_are_computed(tables):
    computed = ["\n".join(make()) for make in tables.TABLES.values()]
    found = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)[1:]  # behind that of the constants
    assert [table.strip() for table in found] == computed


def test_constants_of_the_page_are_those_of_the_package():
    rows = re.findall(r'^\| `(\w+)(?:\["(\w+)"\])?` \| (\S+) \|', PAGE, re.MULTILINE)
    for name, key, value in rows:
        constant = getattr(rates, name)
        assert float(value) == pytest.approx(constant[key] if key else constant), name
    named = {name for name in vars(rates) if name.isupper()} - {"GB", "PRICES_AS_OF"}
    assert {name for name, *_ in rows} == named
    assert f"gave it in {rates.PRICES_AS_OF}" in PAGE


def test_sizes_are_the_products_of_sessions_trials_and_voxels(tables):
    for volumes, whole in ((tables.SUBJECT_VOLUMES, 289e9), (tables.VOLUMES_1MM, 1.65e12)):
        counted = sum(count * 750 * 2 * prod(volumes[subject]) for subject, count in SESSIONS_OF_SUBJECT.items())
        assert counted == pytest.approx(whole, rel=0.005)  # as the dataset's documents and others give it
        case = next(name for name, (numbers, found) in tables.CASES.items() if found is volumes and len(numbers) == 8)
        subjects = tables.make_subjects(case, tables.WORKSTATION)
        assert sum(each.value_bytes * len(each.settings.sessions) for each in subjects) == counted


def test_session_file_of_subject_1_has_the_size_of_a_real_one_and_is_66_ranges(tables):
    (one,) = tables.make_subjects("one subject, 1.8 mm", tables.BUCKET)
    assert one.file_bytes == pytest.approx(1_094_445_528, rel=1e-5)
    assert one.estimate().requests.reads == 40 * (ceil(1_094_445_528 / 2**24) + 2 * 2 + 1) == 2840


def test_workstation_is_as_fast_as_its_disk(tables):
    (one,) = tables.make_subjects("one subject, 1 mm", tables.WORKSTATION)
    moved = 40 * (750 * 2 * 148 * 186 * 145 * 1.5 + 148 * 186 * 145 * 65.3)
    assert one.estimate().seconds == pytest.approx(1 + moved / 1e9, rel=1e-3)


def test_shards_of_a_session_are_as_the_page_says(tables):
    for case, expected in (("eight subjects, 1.8 mm", {10}), ("eight subjects, 1 mm", {50, 75})):
        subjects = tables.make_subjects(case, tables.WORKSTATION)
        assert {each.settings.geometry.shards_per_session for each in subjects} == expected
    assert [each.settings.geometry.shards_per_session for each in subjects].index(75) == 5  # subject 6


def test_memory_of_every_case_is_within_what_is_allowed(tables):
    for place in (tables.WORKSTATION, tables.SLURM, tables.BUCKET, tables.TO_BUCKET):
        for case in tables.CASES:
            for each in tables.make_subjects(case, place):
                assert each.memory.peak_bytes <= 32 * 2**30
                assert each.memory.passes == 1


def test_eight_nodes_share_the_sessions_of_a_subject(tables):
    for each in tables.make_subjects("eight subjects, 1.8 mm", tables.SLURM):
        sessions = len(each.settings.sessions)
        alone = each.estimate()
        disk = sessions * (each.file_bytes + each.value_bytes / 2) / 2e9
        assert 1 + disk <= alone.seconds + 1e-6 <= 1 + disk * 8 * ceil(sessions / 8) / sessions + 1e-3
