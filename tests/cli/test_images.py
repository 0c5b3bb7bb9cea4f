"""The command that converts images, and what other commands say of a store of images."""

import pytest


@pytest.fixture
def stimuli(tmp_path, make_stimuli):
    make_stimuli(tmp_path / "nsd_stimuli.hdf5", layout="gzip")
    return tmp_path / "nsd_stimuli.hdf5"


def test_images_command_tells_what_it_did_and_does_nothing_again(stimuli, tmp_path, run_cli):
    store = tmp_path / "images.zarr"
    outcome = run_cli("images", stimuli, store, "--all", "--images-per-shard", 40, "--codec", "zstd")
    assert outcome.code == 0
    assert outcome.out.startswith(f"{store}: 101 images of (7, 5, 3), 10.6 kB as ")
    assert "3 blocks in" in outcome.out
    lines = outcome.err.splitlines()
    assert lines[0][20:] == "converting 3 blocks, 101 images"  # Behind date and time.
    assert sorted(line[20:].split(" done")[0] for line in lines[1:]) == ["block 01", "block 02", "block 03"]
    again = run_cli("images", stimuli, store, "--images-per-shard", 40, "--codec", "zstd")
    assert (again.code, again.out) == (0, f"{store} is finished: nothing to do.\n")


def test_images_command_gives_json(stimuli, tmp_path, run_cli):
    report = run_cli("images", stimuli, tmp_path / "images.zarr", "--json").json
    assert (report["images"], report["shape"], report["blocks"], report["finished_before"]) == (
        101,
        [7, 5, 3],
        1,
        0,
    )


def test_images_of_a_subject_and_all_are_refused_together(stimuli, tmp_path, run_cli):
    outcome = run_cli("images", stimuli, tmp_path / "images.zarr", "--all", "--subject", 1)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "nsd-zarr: --all, and a subject. Leave out one or the other.\n"
    outcome = run_cli("images", stimuli, tmp_path / "images.zarr", "--images-per-shard", 0)
    assert outcome.code == 2


def test_finished_store_with_other_settings_is_refused(stimuli, tmp_path, run_cli):
    assert run_cli("images", stimuli, tmp_path / "images.zarr").code == 0
    outcome = run_cli("images", stimuli, tmp_path / "images.zarr", "--codec", "zstd")
    assert outcome.code == 4
    assert "codec lz4, now zstd; clevel 5, now 3" in outcome.err


def test_info_and_verify_know_a_store_of_images(stimuli, tmp_path, run_cli):
    store = tmp_path / "images.zarr"
    run_cli("images", stimuli, store)
    text = run_cli("info", store).out
    assert f"store      {store}: complete, format version 1" in text
    assert "images     101 of (7, 5, 3), 101 a shard" in text
    assert "block 01  nsd_stimuli.hdf5" in text
    printed = run_cli("info", store, "--json").json
    assert (printed["images"], printed["shape"], printed["dtype"]) == (101, [101, 7, 5, 3], "uint8")
    assert set(printed["arrays"]) == {"images", "nsd_id", "image_digest"}
    outcome = run_cli("verify", store, "--source", stimuli)
    assert outcome.out.startswith(f"{store} is whole: 7 files, 101 images, ")
    assert outcome.err.splitlines()[0][20:] == "verifying 1 block, 101 images"
