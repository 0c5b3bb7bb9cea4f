"""Space: what does not fit is refused before anything is written, and reported when it is met midway."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from nsd_zarr.conversion.settings import Settings
from nsd_zarr.conversion.space import make_space_plan
from nsd_zarr.errors import DoesNotFit

SETTINGS = Settings("betas", (1, 2, 3), 2, "lz4", 5, (6, 5, 7, 11), "int16")


@pytest.fixture
def set_free(monkeypatch):
    """Let the file system say what is free."""

    def patch(size=10**12, inodes=10**6, counts_inodes=True):
        values = os.statvfs_result((1, 1, size, size, size, 9**9 if counts_inodes else 0, inodes, inodes, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda path: values)

    return patch


@pytest.fixture
def small_disk(make_disk):
    """A file system of 320 KiB with 400 inodes of its own."""
    return make_disk("size=320k,nr_inodes=400")


# -- before anything is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "convert"])
def test_disk_that_is_too_small_is_refused_with_both_sizes(command, source, tmp_path, check_refused, set_free):
    set_free(size=6000)
    paragraph = check_refused(6, command, source, tmp_path / "subj01.zarr")
    assert "disk: 6 kB free, and about 6.93 kB are needed" in paragraph
    assert "--codec zstd" in paragraph


@pytest.mark.parametrize("command", ["plan", "convert"])
def test_inodes_that_are_too_few_are_refused_with_both_counts(command, source, tmp_path, check_refused, set_free):
    set_free(inodes=90)
    paragraph = check_refused(6, command, source, tmp_path / "subj01.zarr", "--trials-per-shard", 2)
    assert "inodes: 90 free, and the store needs 98" in paragraph
    assert "--trials-per-shard" in paragraph


def test_conversion_makes_no_more_inodes_than_planned(source, convert, tmp_path, set_free):
    store = convert(source)
    made = [store, store.with_name("subj01.zarr.run"), *store.rglob("*"), *store.with_name("subj01.zarr.run").iterdir()]
    set_free(inodes=len(made))
    make_space_plan(tmp_path / "new.zarr", SETTINGS, 3)
    set_free(inodes=len(made) - 1)
    with pytest.raises(DoesNotFit):
        make_space_plan(tmp_path / "new.zarr", SETTINGS, 3)


def test_file_system_that_counts_no_inodes_is_not_asked_for_them(tmp_path, set_free):
    set_free(inodes=0, counts_inodes=False)
    assert make_space_plan(tmp_path / "subj01.zarr", SETTINGS, 3).free_inodes is None


def test_finished_sessions_need_no_more_space(tmp_path, set_free):
    set_free(size=2400, inodes=56)
    assert make_space_plan(tmp_path / "subj01.zarr", SETTINGS, 1).expected_bytes == 2310
    set_free(size=0, inodes=0)
    assert make_space_plan(tmp_path / "subj01.zarr", SETTINGS, 0).expected_bytes == 0


def test_finished_store_on_a_full_disk_is_a_no_op(source, convert, run_cli, set_free):
    store = convert(source)
    set_free(size=0, inodes=0)
    assert run_cli("convert", source, store, "--trials-per-shard", 2).code == 0


def test_level_0_is_expected_to_compress_nothing(tmp_path, set_free):
    set_free()
    assert make_space_plan(tmp_path / "subj01.zarr", replace(SETTINGS, clevel=0), 3).expected_bytes == 18 * 770


# -- midway ------------------------------------------------------------------------------------------------------


@pytest.fixture
def noise(make_session, tmp_path):
    """A session of 167 kB that no codec makes smaller, of which a plan expects half."""
    make_session(1, values=np.random.default_rng(7).integers(-(2**15), 2**15, (12, 5, 7, 199), "<i2"), trials=12)
    return tmp_path / "source"


def test_disk_that_is_too_small_in_fact_is_refused(noise, small_disk, check_refused):
    (small_disk / "ballast").write_bytes(b"x" * 260_000)
    paragraph = check_refused(6, "convert", noise, small_disk / "subj01.zarr", "--trials-per-shard", 4)
    assert paragraph.startswith("disk: ")


def test_disk_that_fills_up_midway_is_reported_and_gone_on_from(noise, small_disk, run_cli, convert, digest_tree):
    store, ballast = small_disk / "subj01.zarr", small_disk / "ballast"
    ballast.write_bytes(b"x" * 190_000)
    words = ("convert", noise, store, "--trials-per-shard", 4, "--workers", 1)
    outcome = run_cli(*words)
    assert outcome.code == 6, outcome.err
    assert outcome.paragraph.startswith("session 01: cannot write: the disk is full (or out of inodes). Make room")
    assert not list(small_disk.rglob("*.partial"))
    ballast.unlink()
    assert run_cli(*words).code == 0
    assert digest_tree(store) == digest_tree(convert(noise, "expected.zarr", trials_per_shard=4))


def test_inodes_that_run_out_midway_are_reported_and_gone_on_from(
    source, small_disk, make_recorder, convert, digest_tree, tmp_path
):
    store, ballast = small_disk / "subj01.zarr", []

    def use_up():
        while os.statvfs(small_disk).f_favail:
            ballast.append(small_disk / f"ballast{len(ballast)}")
            ballast[-1].touch()

    with pytest.raises(DoesNotFit, match="session 02: cannot write: the disk is full"):
        convert(source, store, workers=1, on_event=make_recorder(8, use_up))
    for path in ballast:
        path.unlink()
    assert digest_tree(convert(source, store)) == digest_tree(convert(source, "expected.zarr"))


def test_file_size_limit_met_midway_is_reported_and_gone_on_from(noise, tmp_path, run_child, convert, digest_tree):
    store = tmp_path / "subj01.zarr"
    words = ("convert", noise, store, "--trials-per-shard", 12)
    outcome = run_child(*words, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))")
    assert outcome.code == 6, outcome.err
    assert "session 01: cannot write: the file would exceed the file-size limit (see ulimit -f)" in outcome.paragraph
    assert run_child(*words).code == 0
    assert digest_tree(store) == digest_tree(convert(noise, "expected.zarr", trials_per_shard=12))
