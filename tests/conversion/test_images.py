"""Stimulus images become a store: exact in every layout, resumable, proved, for all images or one subject's."""

from __future__ import annotations

import json
import signal
import time
from itertools import product

import h5py
import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.conversion.events import SessionDone, TrialsDone, TrialsRead
from nsd_zarr.errors import ConfigError, DamageFound, DoesNotFit, ResumeRefused, SourceError, StoreError
from nsd_zarr.store.root import open_store

LAYOUTS = ["contiguous", "one image a chunk", "gzip", "odd chunks", "large chunks"]
SEEN = (1, 4, 5, 6, 7, 13, 14, 29, 30, 31, 57, 58, 59, 87, 88, 101)
"""73KIDs, 1-based, that the subject saw; it saw some of them again."""


def read_store(store):
    """Images and ids of a store through zarr-python, the oracle."""
    group = zarr.open_group(store, mode="r")
    return group["images"][...], group["nsd_id"][...]


@pytest.fixture
def stimuli(tmp_path, make_stimuli):
    """A stimulus file of 101 images, contiguous as the dataset's own is thought to be."""
    make_stimuli(tmp_path / "nsd_stimuli.hdf5")
    return tmp_path / "nsd_stimuli.hdf5"


@pytest.fixture
def table(tmp_path, make_trial_table_of):
    """A trial table of subject 2 whose trials show SEEN, two of them twice."""
    make_trial_table_of(tmp_path / "responses.tsv", [*SEEN[::-1], 101, 5], subject=2)
    return tmp_path / "responses.tsv"


@pytest.fixture
def images_of(tmp_path):
    """Convert stimuli to the store of a name; returns the store."""

    def make(source, name="images.zarr", **options):
        nsd_zarr.convert_images(source, tmp_path / name, **{"images_per_shard": 11, "workers": 2} | options)
        return tmp_path / name

    return make


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "per_shard"), [*product(LAYOUTS, (None, 1, 11, 29, 101, 400))])
def test_all_images_of_any_layout_come_out_exact(layout, per_shard, tmp_path, make_stimuli, images_of):
    values = make_stimuli(tmp_path / "s.hdf5", layout=layout)
    images, ids = read_store(images_of(tmp_path / "s.hdf5", images_per_shard=per_shard))
    assert (images.dtype, images.shape) == (np.uint8, (101, 7, 5, 3))
    assert np.array_equal(images, values)
    assert np.array_equal(ids, np.arange(101))


@pytest.mark.parametrize(("layout", "per_shard"), [*product(LAYOUTS, (None, 1, 3, 5))])
def test_images_of_a_subject_come_in_the_order_of_their_ids(
    layout, per_shard, tmp_path, make_stimuli, table, images_of
):
    values = make_stimuli(tmp_path / "s.hdf5", layout=layout)
    images, ids = read_store(images_of(tmp_path / "s.hdf5", trial_table=table, images_per_shard=per_shard))
    # 73KID - 1 is the row of imgBrick.
    assert ids.tolist() == [seen - 1 for seen in SEEN]
    assert np.array_equal(images, values[np.array(SEEN) - 1])


def test_golden_73kid_is_the_row_above_it(tmp_path, make_trial_table_of, images_of):
    """The first image of subject 1 has 73KID 46003: row 46002. Source: public code that reads the dataset."""
    make_trial_table_of(tmp_path / "responses.tsv", [46003, 61883, 829])
    with h5py.File(tmp_path / "s.hdf5", "w") as file:
        data = file.create_dataset("imgBrick", (73_000, 3, 2, 3), "u1", chunks=(250, 3, 2, 3))
        for row, value in ((46002, 3), (61882, 5), (828, 7), (46003, 200), (829, 200)):
            data[row] = value
    images, ids = read_store(images_of(tmp_path / "s.hdf5", trial_table=tmp_path / "responses.tsv"))
    assert ids.tolist() == [828, 46002, 61882]
    assert images[:, 0, 0, 0].tolist() == [7, 3, 5]


def test_nsd_root_names_stimuli_and_trial_table(tmp_path, make_stimuli, make_trial_table_of, images_of):
    values = make_stimuli(tmp_path / "nsd/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5")
    make_trial_table_of(tmp_path / "nsd/nsddata/ppdata/subj03/behav/responses.tsv", [9, 40, 9], subject=3)
    images, ids = read_store(images_of(tmp_path / "nsd", subject=3))
    assert ids.tolist() == [8, 39]
    assert np.array_equal(images, values[[8, 39]])
    assert np.array_equal(read_store(images_of(tmp_path / "nsd", "all.zarr"))[0], values)


def test_store_tells_its_shape_codecs_and_source(stimuli, images_of):
    store = open_store(images_of(stimuli), kind=None)
    images = store.members["images"].document
    (sharding,) = images["codecs"]
    assert images["dimension_names"] == ["image", "row", "column", "channel"]
    assert images["chunk_grid"]["configuration"]["chunk_shape"] == [11, 7, 5, 3]
    assert sharding["configuration"]["chunk_shape"] == [1, 7, 5, 3]
    assert [codec["name"] for codec in sharding["configuration"]["codecs"]] == ["bytes", "blosc", "crc32c"]
    blosc = sharding["configuration"]["codecs"][1]["configuration"]
    assert (blosc["cname"], blosc["clevel"], blosc["shuffle"], blosc["typesize"]) == ("lz4", 5, "bitshuffle", 1)
    assert store.attributes.status == "complete"
    assert [source.part for source in store.attributes.sources] == [*range(1, 11)]
    assert {(source.name, source.size) for source in store.attributes.sources} == {
        ("nsd_stimuli.hdf5", stimuli.stat().st_size)
    }


def test_store_of_images_is_not_taken_for_betas(stimuli, images_of):
    store = images_of(stimuli)
    with pytest.raises(StoreError, match="a store of images, expected one of betas"):
        nsd_zarr.open_dataset(store)
    with pytest.raises(StoreError, match=r"no such store.*nsd-zarr convert"):
        nsd_zarr.open_dataset(store.with_name("nothing.zarr"))


# -- work --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("subset", [False, True], ids=["all", "subject"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_chunk_is_read_twice(layout, subset, workers, tmp_path, make_stimuli, table, images_of, monkeypatch):
    make_stimuli(tmp_path / "s.hdf5", layout=layout)
    with h5py.File(tmp_path / "s.hdf5") as file:
        chunk = (file["imgBrick"].chunks or (1,))[0]
    read = []
    real = h5py.Dataset.read_direct

    def read_direct(data, dest, source_sel=None, dest_sel=None):
        images = source_sel[0]
        assert source_sel[1:] == tuple(slice(0, length) for length in data.shape[1:])
        read.extend(range(images.start // chunk, -(-images.stop // chunk)))
        real(data, dest, source_sel, dest_sel)

    monkeypatch.setattr(h5py.Dataset, "read_direct", read_direct)
    options = {"trial_table": table, "images_per_shard": 3} if subset else {"images_per_shard": 11}
    images_of(tmp_path / "s.hdf5", workers=workers, **options)
    wanted = np.array(SEEN) - 1 if subset else np.arange(101)
    assert sorted(read) == np.unique(wanted // chunk).tolist()


def test_finished_store_is_left_as_it_is(stimuli, images_of, digest_tree, tmp_path):
    store = images_of(stimuli)
    before = digest_tree(store)
    report = nsd_zarr.convert_images(stimuli, store, images_per_shard=11)
    assert (report.blocks, report.finished_before, report.images) == (0, 10, 101)
    assert digest_tree(store) == before


def test_report_and_events_count_images(stimuli, tmp_path, make_recorder):
    recorder = make_recorder()
    report = nsd_zarr.convert_images(stimuli, tmp_path / "images.zarr", images_per_shard=11, on_event=recorder)
    assert (report.images, report.shape, report.blocks) == (101, (7, 5, 3), 10)
    assert report.bytes_in == 101 * 105
    assert report.bytes_out == sum(path.stat().st_size for path in (tmp_path / "images.zarr").glob("images/c/*/0/0/0"))
    assert recorder.trials == 101
    assert recorder.sessions == list(range(1, 11))


def test_bytes_are_the_same_for_any_workers_memory_and_layout_of_chunks(tmp_path, make_stimuli, images_of, digest_tree):
    trees = []
    for number, layout in enumerate(LAYOUTS):
        make_stimuli(tmp_path / f"{number}/nsd_stimuli.hdf5", layout=layout)
        store = images_of(tmp_path / f"{number}/nsd_stimuli.hdf5", f"{number}.zarr", workers=number + 1)
        trees.append(digest_tree(store))
        trees[-1].pop("zarr.json")  # tells the size of the source
    assert all(tree == trees[0] for tree in trees)


# -- stopped -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", [False, True], ids=["all", "subject"])
@pytest.mark.parametrize("at_image", [1, 8, 12, 16])
def test_interrupted_conversion_goes_on_to_the_same_bytes(
    at_image, subset, tmp_path, make_stimuli, table, images_of, make_recorder, digest_tree
):
    make_stimuli(tmp_path / "s.hdf5", layout="odd chunks")
    options = {"trial_table": table, "images_per_shard": 3} if subset else {"images_per_shard": 3}
    undisturbed = digest_tree(images_of(tmp_path / "s.hdf5", "undisturbed.zarr", **options))

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images_of(tmp_path / "s.hdf5", on_event=make_recorder(at_image, stop), workers=1, **options)
    store = tmp_path / "images.zarr"
    with pytest.raises(StoreError, match=r"has not finished.*images command"):
        open_store(store, kind=None)
    recorder = make_recorder()
    images_of(tmp_path / "s.hdf5", on_event=recorder, **options)
    assert digest_tree(store) == undisturbed
    assert recorder.trials <= (len(SEEN) if subset else 101) - (at_image - 1) // 3 * 3
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_killed_conversion_goes_on_to_the_same_bytes(stimuli, tmp_path, images_of, start_cli, run_child, digest_tree):
    undisturbed = digest_tree(images_of(stimuli, "undisturbed.zarr", images_per_shard=1))
    store, killed = tmp_path / "images.zarr", 0
    for count in (0, 1, 20, 60, 100):
        process = start_cli("images", stimuli, store, "--images-per-shard", 1, "--workers", 2)
        deadline = time.monotonic() + 30
        while process.poll() is None and len(list(store.glob("images/c/*/0/0/0"))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 3
    assert run_child("images", stimuli, store, "--images-per-shard", 1).code == 0
    assert digest_tree(store) == undisturbed


def test_resume_with_another_selection_is_refused(stimuli, table, tmp_path, images_of, make_recorder):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images_of(stimuli, on_event=make_recorder(20, stop))
    with pytest.raises(ResumeRefused, match=r"selection all, now [0-9a-f]{32}.*--fresh"):
        images_of(stimuli, trial_table=table)
    images, _ = read_store(images_of(stimuli, trial_table=table, fresh=True))
    assert len(images) == len(SEEN)


def test_source_that_changed_since_is_read_again_and_its_image_named(stimuli, images_of, make_stimuli, make_recorder):
    store = images_of(stimuli)
    values = make_stimuli(stimuli)
    recorder = make_recorder()
    images_of(stimuli, on_event=recorder)
    assert recorder.trials == 101  # compared, and the same
    values[58, 6, 4, 2] ^= 1
    with h5py.File(stimuli, "r+") as file:
        file["imgBrick"][58] = values[58]
    with pytest.raises(ResumeRefused, match=r"changed since it was converted: image 58 \(0-based 73k id\)") as caught:
        images_of(stimuli)
    assert caught.value.session is None
    assert nsd_zarr.verify(store).is_whole


# -- refused -----------------------------------------------------------------------------------------------------


def test_source_without_images_of_uint8_is_refused(tmp_path, images_of):
    for number, values in enumerate(
        [np.zeros((4, 7, 5, 3), "i2"), np.zeros((4, 7, 5), "u1"), np.zeros((4, 7, 5, 4), "u1")]
    ):
        path = tmp_path / f"{number}.hdf5"
        with h5py.File(path, "w") as file:
            file["imgBrick"] = values
        with pytest.raises(SourceError, match=r"expected uint8 \(image, row, column, 3\)"):
            images_of(path)
    with pytest.raises(SourceError, match="no such file"):
        images_of(tmp_path / "nothing.hdf5")
    with pytest.raises(SourceError, match=r"no nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5 in this folder"):
        images_of(tmp_path)


def test_dataset_of_another_name_is_named(tmp_path, make_stimuli, images_of):
    values = make_stimuli(tmp_path / "s.hdf5", name="pictures")
    with pytest.raises(SourceError, match="no dataset /imgBrick: found /pictures"):
        images_of(tmp_path / "s.hdf5")
    assert np.array_equal(read_store(images_of(tmp_path / "s.hdf5", dataset="pictures"))[0], values)


def test_image_that_the_source_has_not_is_reported_with_its_id(stimuli, tmp_path, make_trial_table_of, images_of):
    make_trial_table_of(tmp_path / "responses.tsv", [7, 102])
    with pytest.raises(SourceError, match=r"it has 101 images, and image 101 \(0-based 73k id\) is wanted"):
        images_of(stimuli, trial_table=tmp_path / "responses.tsv")


def test_subject_without_its_trial_table_is_refused(stimuli, table, images_of):
    with pytest.raises(SourceError, match=r"no trial table of subject 2.*--trial-table"):
        images_of(stimuli, subject=2)
    with pytest.raises(ConfigError, match="subject 3, and a trial table of subject 2"):
        images_of(stimuli, subject=3, trial_table=table)
    assert len(read_store(images_of(stimuli, subject=2, trial_table=table))[0]) == len(SEEN)


def test_too_little_memory_and_odd_numbers_are_refused(stimuli, images_of):
    with pytest.raises(DoesNotFit, match="--images-per-shard"):
        images_of(stimuli, memory="1MiB")
    with pytest.raises(ConfigError, match="images_per_shard = 0"):
        images_of(stimuli, images_per_shard=0)
    with pytest.raises(ConfigError, match="unknown option 'codek'"):
        images_of(stimuli, codek="zstd")


def test_betas_are_not_converted_over_images_nor_images_over_betas(stimuli, images_of, source, convert):
    store = images_of(stimuli)
    with pytest.raises(StoreError, match="something else stands where the store shall be"):
        convert(source, "images.zarr")
    betas = convert(source)
    with pytest.raises(StoreError, match="something else stands where the store shall be"):
        images_of(stimuli, betas.name)
    assert nsd_zarr.verify(store).is_whole
    assert nsd_zarr.verify(betas).is_whole


# -- proved ------------------------------------------------------------------------------------------------------


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("words", [(), ("--quick",), ("--source",)], ids=["full", "quick", "source"])
def test_whole_store_is_found_whole(words, stimuli, table, images_of, run_cli):
    store = images_of(stimuli, trial_table=table, images_per_shard=5)
    words = (*words, stimuli) if words == ("--source",) else words
    outcome = run_cli("verify", store, *words, "--json")
    printed = json.loads(outcome.out)
    assert (outcome.code, printed["whole"], printed["damages"]) == (0, True, [])
    assert (printed["trials"], printed["item"]) == (0 if words == ("--quick",) else 16, "image")
    assert "16 images" in run_cli("verify", store).out


def test_damaged_image_is_named_by_its_id(stimuli, table, images_of):
    store = images_of(stimuli, trial_table=table, images_per_shard=5)
    entries = np.frombuffer((store / "images/c/1/0/0/0").read_bytes()[-84:-4], "<u8").reshape(5, 2)
    flip(store / "images/c/1/0/0/0", int(entries[2, 0]) + 30)  # 73KID 29: the third image of the second shard
    (damage,) = nsd_zarr.verify(store).damages
    assert (damage.images, damage.trials, damage.session) == ((28, 28), (7, 7), None)
    assert str(damage).startswith("image 28 (0-based 73k id), images/c/1/0/0/0, bytes ")
    assert "its crc32c does not match" in damage.problem


@pytest.mark.parametrize("strength", ["quick", "full"])
def test_lost_and_cut_shards_are_named_with_their_images(strength, stimuli, table, images_of):
    store = images_of(stimuli, trial_table=table, images_per_shard=5)
    (store / "images/c/0/0/0/0").unlink()
    last = store / "images/c/3/0/0/0"
    last.write_bytes(last.read_bytes()[:-1])
    damages = nsd_zarr.verify(store, quick=strength == "quick").damages
    assert [(damage.path, damage.images) for damage in damages] == [
        ("images/c/0/0/0/0", (0, 6)),
        ("images/c/3/0/0/0", (100, 100)),
    ]


def test_other_values_in_the_source_are_found(stimuli, images_of):
    store = images_of(stimuli)
    with h5py.File(stimuli, "r+") as file:
        file["imgBrick"][100, 6, 4, 2] ^= 1
    (damage,) = nsd_zarr.verify(store, stimuli).damages
    assert damage.images == (100, 100)
    assert "differ from nsd_stimuli.hdf5" in damage.problem


def test_swapped_ids_are_found(stimuli, images_of):
    store = images_of(stimuli)
    flip(store / "nsd_id/c/0", 8)
    assert [damage.path for damage in nsd_zarr.verify(store, quick=True).damages] == ["nsd_id/c/0"]


# -- repaired ----------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(stimuli, table, images_of, digest_tree):
    """A store of a subject's images, its sound tree, and what repairs it."""
    store = images_of(stimuli, trial_table=table, images_per_shard=5)
    return store, digest_tree(store)


@pytest.mark.parametrize(
    "lost",
    [
        ["images/c/0/0/0/0"],
        ["images/c/3/0/0/0", "images/c/1/0/0/0"],
        ["nsd_id/c/0"],
        ["image_digest/c/0"],
        ["image_digest/c/0", "images/c/2/0/0/0"],
        ["images/zarr.json", "nsd_id/zarr.json"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("how", ["missing", "flipped"])
def test_damage_is_repaired_to_the_same_bytes(how, lost, damaged, stimuli, table, digest_tree):
    store, sound = damaged
    for key in lost:
        (store / key).unlink() if how == "missing" else flip(store / key, 8)
    assert {damage.path for damage in nsd_zarr.verify(store).damages} == set(lost)
    report = nsd_zarr.repair(store, stimuli, trial_table=table)
    assert set(report.rewritten) == set(lost)
    assert digest_tree(store) == sound


def test_damage_of_all_images_is_repaired_from_the_command_line(stimuli, images_of, run_cli, digest_tree):
    store = images_of(stimuli)
    sound = digest_tree(store)
    flip(store / "images/c/9/0/0/0", 3)
    (store / "nsd_id/c/0").unlink()
    assert run_cli("verify", store).code == 1
    assert run_cli("repair", store, "--source", stimuli).code == 0
    assert digest_tree(store) == sound


def test_repair_refuses_a_source_with_other_images(damaged, stimuli, digest_tree):
    store, _ = damaged
    (store / "images/c/1/0/0/0").unlink()
    with h5py.File(stimuli, "r+") as file:
        file["imgBrick"][28, 0, 0, 0] ^= 1
    before = digest_tree(store)
    with pytest.raises(ResumeRefused, match=r"^the source changed since it was converted: image 28 \(0-based 73k id\)"):
        nsd_zarr.repair(store, stimuli)
    assert digest_tree(store) == before


def test_lost_ids_of_a_part_need_the_trial_table(damaged, stimuli):
    store, _ = damaged
    (store / "nsd_id/c/0").unlink()
    with pytest.raises(DamageFound, match="array nsd_id is lost or damaged"):
        nsd_zarr.repair(store, stimuli)


def test_lost_root_document_of_images_comes_back_from_its_copy_or_is_refused(damaged, stimuli):
    store, _ = damaged
    nsd_zarr.repair(store, stimuli)
    root, copy = (store / "zarr.json").read_bytes(), store.with_name(store.name + ".run") / "root.json"
    (store / "zarr.json").unlink()
    (damage,) = nsd_zarr.verify(store).damages
    assert damage.path == "zarr.json"
    copy.rename(copy.with_name("away"))
    with pytest.raises(StoreError, match="comes back from its copy"):
        nsd_zarr.repair(store, stimuli)
    copy.with_name("away").rename(copy)
    assert nsd_zarr.repair(store, stimuli).rewritten == ("zarr.json",)
    assert (store / "zarr.json").read_bytes() == root


def test_every_event_is_of_a_known_kind(stimuli, tmp_path, make_recorder):
    recorder = make_recorder()
    nsd_zarr.convert_images(stimuli, tmp_path / "images.zarr", on_event=recorder)
    assert {type(event) for event in recorder.events[1:]} == {TrialsRead, TrialsDone, SessionDone}
    assert [event.how for event in recorder.events if isinstance(event, SessionDone)] == ["through h5py"]
