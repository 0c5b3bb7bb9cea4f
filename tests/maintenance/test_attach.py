"""attach: the same bytes as a conversion that had the experiment, whole at every moment, trials untouched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
import zarr

import nsd_zarr
from nsd_zarr.conversion.lock import hold_lock
from nsd_zarr.conversion.memory import BASE_BYTES, EXPERIMENT_BYTES, Need, make_memory_plan
from nsd_zarr.errors import ConfigError, SourceError, StoreError
from nsd_zarr.simulate import Simulation, locate_root, simulate_root
from nsd_zarr.store.format import make_root_metadata
from nsd_zarr.store.root import open_store

ROIS = ("nsdgeneral", "prf-visualrois", "streams", "floc-faces")
"""A few of the sets of regions, so that few files are written."""
SIMULATION = Simulation(3, (26, 5, 11, 7), rois=ROIS, hemispheres=False)
STATISTICS = ("session_mean", "session_std", "rail_count")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root, and two stores of it: with the experiment, and without."""
    top = tmp_path_factory.mktemp("attach")
    root = simulate_root(top / "nsd", SIMULATION)
    for name, options in (("with", {}), ("without", {"no_experiment": True})):
        nsd_zarr.convert(root.betas_folder, top / f"{name}.zarr", trials_per_shard=13, workers=1, **options)
    return top


@pytest.fixture
def nsd(made):
    return made / "nsd"


@pytest.fixture
def copy_store(made, tmp_path):
    """A copy of one of the stores, under a name of its own."""

    def copy(which="without", name="subj01.zarr"):
        shutil.copytree(made / f"{which}.zarr", tmp_path / name)
        return tmp_path / name

    return copy


@pytest.fixture
def expected(made, digest_tree):
    return digest_tree(made / "with.zarr")


def remove_statistics(store):
    """The store as this format was before there were statistics."""
    document = json.loads((store / "zarr.json").read_bytes())
    attributes, members = document["attributes"], document["consolidated_metadata"]["metadata"]
    for name in STATISTICS:
        shutil.rmtree(store / name)
        del members[name]
    attributes.pop("checksum")
    manifest = attributes["manifest"]
    attributes["manifest"] = {key: value for key, value in manifest.items() if key.split("/")[0] not in STATISTICS}
    (store / "zarr.json").write_bytes(make_root_metadata(attributes, members))


def test_store_gets_the_bytes_of_a_conversion_that_had_the_experiment(copy_store, nsd, digest_tree, expected):
    store = copy_store()
    report = nsd_zarr.attach(store, nsd)
    assert digest_tree(store) == expected
    assert report.experiment.found[:2] == ("trial table", "design")
    assert not report.computed_statistics
    assert nsd_zarr.verify(store, nsd).is_whole


def test_attaching_again_changes_nothing(copy_store, nsd, digest_tree, expected):
    store = copy_store("with")
    nsd_zarr.attach(store, nsd, subject=1, space="func1pt8mm")
    assert digest_tree(store) == expected


def test_trials_are_not_written(copy_store, nsd):
    store = copy_store()
    before = {path: path.stat() for path in (store / "betas/c").rglob("*") if path.is_file()}
    nsd_zarr.attach(store, nsd)
    assert {path: path.stat().st_mtime_ns for path in before} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }
    assert {path: path.stat().st_ino for path in before} == {path: stat.st_ino for path, stat in before.items()}


def test_store_of_before_there_were_statistics_reads_and_gets_them(
    copy_store, nsd, digest_tree, expected, made, make_recorder
):
    store = copy_store()
    remove_statistics(store)
    trial = nsd_zarr.open_dataset(made / "with.zarr").betas[30].values
    assert np.array_equal(nsd_zarr.open_dataset(store).betas[30].values, trial)
    assert nsd_zarr.verify(store).is_whole
    recorder = make_recorder()
    report = nsd_zarr.attach(store, nsd, workers=2, on_event=recorder)
    assert report.computed_statistics
    (step,) = recorder.add_up()
    assert step.name == "reading back"
    assert step.done == step.announced
    assert step.done[1] == nsd_zarr.verify(store).trials
    assert digest_tree(store) == expected


def test_statistics_do_not_depend_on_memory(copy_store, nsd, digest_tree, expected, monkeypatch):
    store = copy_store()
    remove_statistics(store)
    need = Need(open_store(store).geometry, by_offset=True, chunk_bytes=0)
    least = need.session_bytes(13, 1) + BASE_BYTES + EXPERIMENT_BYTES
    seen = []
    planned = "nsd_zarr.maintenance.recompute.make_memory_plan"
    monkeypatch.setattr(planned, lambda *words: seen.append(make_memory_plan(*words)) or seen[-1])
    nsd_zarr.attach(store, nsd, memory=least, workers=1)
    assert seen[0].passes == 2
    assert digest_tree(store) == expected


def test_experiment_is_replaced_by_another_and_taken_out_again(copy_store, nsd, digest_tree, made, tmp_path):
    store, root = copy_store("with"), locate_root(nsd, SIMULATION)
    nsd_zarr.attach(store, brainmask=root.brainmask, roi=root.rois["streams"])
    names = set(zarr.open_group(store, mode="r"))
    assert {"brainmask", "roi_streams", "affine"} <= names
    assert not names & {"nsd_id", "valid", "roi_nsdgeneral"}
    assert not (store / "nsd_id").exists()
    assert nsd_zarr.verify(store).is_whole
    nsd_zarr.attach(store, no_experiment=True)
    assert digest_tree(store) == digest_tree(made / "without.zarr")


def test_root_without_session_files_is_enough(copy_store, nsd, tmp_path, digest_tree, expected):
    shutil.copytree(nsd, tmp_path / "nsd", ignore=shutil.ignore_patterns("*.hdf5"))
    store = copy_store()
    with pytest.raises(SourceError, match="no session files"):
        nsd_zarr.attach(store, tmp_path / "nsd")
    nsd_zarr.attach(store, tmp_path / "nsd", subject=1, space="func1pt8mm", betas="betas_fithrf_GLMdenoise_RR")
    assert digest_tree(store) == expected


def test_finished_store_with_an_experiment_is_a_no_op_for_convert(copy_store, nsd, digest_tree, expected, run_cli):
    store = copy_store()
    assert run_cli("attach", store, nsd).code == 0
    assert run_cli("convert", nsd, store, "--trials-per-shard", 13).code == 0
    assert digest_tree(store) == expected


def test_command_says_what_was_attached(copy_store, nsd, run_cli):
    store = copy_store()
    outcome = run_cli("attach", store, nsd, "--subject", 1)
    assert outcome.out.startswith(f"{store}: experiment attached in ")
    assert "experiment  trial table, design" in outcome.out
    printed = json.loads(run_cli("attach", store, nsd, "--json").out)
    assert printed["experiment"]["missing"] == []
    assert printed["computed_statistics"] is False


# -- refusals ----------------------------------------------------------------------------------------------------


def test_contradiction_is_refused_and_the_store_stays(copy_store, nsd, tmp_path, digest_tree, check_refused):
    store, other = copy_store(), Simulation(3, (26, 3, 11, 7), subject=2, rois=ROIS, hemispheres=False)
    simulate_root(tmp_path / "other", other)
    paragraph = check_refused(3, "attach", store, tmp_path / "other")
    assert "subject 2, expected 1 as in the store" in paragraph
    simulate_root(tmp_path / "longer", Simulation(3, (29, 5, 11, 7), rois=ROIS, hemispheres=False))
    paragraph = check_refused(3, "attach", store, tmp_path / "longer")
    assert "has 29 rows for it, expected 26" in paragraph


def test_nothing_to_attach_is_refused_with_what_was_looked_for(copy_store, tmp_path, check_refused, nsd):
    store = copy_store()
    assert "none of its files is named" in check_refused(3, "attach", store)
    shutil.copytree(nsd / "nsddata_betas", tmp_path / "bare/nsddata_betas")
    (next((tmp_path / "bare").rglob("ncsnr.nii.gz"))).unlink()
    paragraph = check_refused(3, "attach", store, tmp_path / "bare")
    assert "looked for nsddata/ppdata/subj01/behav/responses.tsv" in paragraph


def test_what_is_no_finished_store_is_refused(nsd, tmp_path, interrupt, source):
    with pytest.raises(StoreError, match="no such store"):
        nsd_zarr.attach(tmp_path / "none.zarr", nsd)
    with pytest.raises(StoreError, match="has not finished"):
        nsd_zarr.attach(interrupt(source), nsd)


def test_bad_options_are_refused(copy_store, nsd):
    with pytest.raises(ConfigError, match="Did you mean brainmask"):
        nsd_zarr.attach(copy_store(), nsd, brain_mask="x")


def test_store_in_use_by_a_live_run_is_refused(copy_store, nsd):
    store = copy_store()
    with hold_lock(store), pytest.raises(StoreError, match=r"in use|another"):
        nsd_zarr.attach(store, nsd)


# -- stopped anywhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["without", "with", "old"])
def test_stopped_before_each_rename_the_store_is_whole_and_attaching_again_finishes(
    which, copy_store, nsd, digest_tree, expected, monkeypatch, stop_at_rename, tmp_path
):
    def make(name):
        store = copy_store("without" if which == "old" else which, name)
        if which == "old":
            remove_statistics(store)
        return store

    replace, counted = os.replace, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda old, new: (counted.append(new), replace(old, new)))
        nsd_zarr.attach(make("counted.zarr"), nsd)
    run, root = tmp_path / "counted.zarr.run", tmp_path / "counted.zarr/zarr.json"
    assert counted[:3] == [run / "arrays.json", run / "root.json", root]
    assert counted[-2:] == counted[1:3]
    for number in sorted({*range(1, len(counted) + 1, 9), 2, 3, len(counted) - 1, len(counted)}):
        store = make(f"stopped{number}.zarr")
        with stop_at_rename(number):
            nsd_zarr.attach(store, nsd)
        assert nsd_zarr.verify(store).is_whole
        nsd_zarr.open_dataset(store).load()
        if number > 2:
            (store / "zarr.json").rename(tmp_path / "root")  # Lost now, it comes back as that of a whole store.
            assert nsd_zarr.repair(store, nsd).rewritten == ("zarr.json",)
            assert nsd_zarr.verify(store).is_whole
            (tmp_path / "root").rename(store / "zarr.json")
        nsd_zarr.attach(store, nsd)
        assert digest_tree(store) == expected
        assert (store / "zarr.json").read_bytes() == (tmp_path / f"{store.name}.run/root.json").read_bytes()
        shutil.rmtree(store)


def test_killed_while_it_goes_on_the_store_is_whole(copy_store, nsd, start_cli, digest_tree, expected):
    for moment in ("brainmask", "roi_streams", "session_mean"):
        store = copy_store(name=f"{moment}.zarr")
        remove_statistics(store)
        process = start_cli("attach", store, nsd)
        deadline = time.monotonic() + 60
        while not (store / moment).exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert open_store(store).is_complete
        assert nsd_zarr.verify(store).is_whole
        nsd_zarr.attach(store, nsd)
        assert digest_tree(store) == expected


# -- what is whose, and who looks meanwhile ----------------------------------------------------------------------


def test_array_that_the_user_added_stays(copy_store, nsd, made, digest_tree):
    store = copy_store("with")
    zarr.create_array(store / "my_mask", shape=(5,), chunks=(5,), dtype="i4")[:] = 7
    nsd_zarr.attach(store, no_experiment=True)
    assert zarr.open_array(store / "my_mask", mode="r")[:].tolist() == [7] * 5
    assert not (store / "brainmask").exists()
    shutil.rmtree(store / "my_mask")
    assert digest_tree(store) == digest_tree(made / "without.zarr")


@pytest.mark.parametrize("name", ["roi_mine", "brainmask"])
def test_array_of_the_user_stays_whatever_its_name(name, copy_store, nsd, made, digest_tree):
    store = copy_store("without")
    zarr.create_array(store / name, shape=(5,), chunks=(5,), dtype="i4")[:] = 7
    before = digest_tree(store / name)
    if name == "roi_mine":
        nsd_zarr.attach(store, nsd)
    nsd_zarr.attach(store, no_experiment=True)
    assert digest_tree(store / name) == before
    shutil.rmtree(store / name)
    assert digest_tree(store) == digest_tree(made / "without.zarr")


def test_array_of_the_user_is_not_written_over(copy_store, nsd, digest_tree, run_cli):
    store = copy_store("without")
    zarr.create_array(store / "roi_streams", shape=(5,), chunks=(5,), dtype="i4")[:] = 7
    before = digest_tree(store)
    outcome = run_cli("attach", store, nsd)
    assert outcome.code == 4
    assert "roi_streams is in the folder of the store, and no array" in outcome.paragraph
    assert digest_tree(store) == before
    assert nsd_zarr.verify(store).is_whole


@pytest.mark.parametrize("left", ["zarr.json", "c"])
def test_removal_that_was_killed_is_finished_by_the_next(left, copy_store, made, digest_tree, monkeypatch):
    store = copy_store("with")

    def remove_a_part(place, name):
        other = place.folder / name / ("zarr.json" if left == "c" else "c")
        other.unlink() if left == "c" else shutil.rmtree(other)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nsd_zarr.places.local.LocalPlace.remove_below", remove_a_part)
        with pytest.raises(KeyboardInterrupt):
            nsd_zarr.attach(store, no_experiment=True)
    assert nsd_zarr.verify(store).is_whole
    assert digest_tree(store) != digest_tree(made / "without.zarr")
    nsd_zarr.attach(store, no_experiment=True)
    assert digest_tree(store) == digest_tree(made / "without.zarr")
    assert not (store.with_name("subj01.zarr.run") / "arrays.json").exists()


@pytest.mark.parametrize(
    "names", [["../precious"], ["c", "precious"], ["roi_/../../precious"], ["roi_", ".."], "[" * 10**5]
)
def test_note_of_arrays_leads_to_no_other_folder(names, copy_store, made, digest_tree):
    store = copy_store("with")
    precious = store.with_name("precious")
    precious.mkdir()
    (precious / "zarr.json").write_text("{}")
    run = store.with_name("subj01.zarr.run")
    run.mkdir()
    (run / "arrays.json").write_text(names if isinstance(names, str) else json.dumps({"arrays": names}))
    nsd_zarr.attach(store, no_experiment=True)
    assert (precious / "zarr.json").exists()
    assert digest_tree(store) == digest_tree(made / "without.zarr")


def test_verify_beside_an_attach_finds_no_damage_in_a_whole_store(copy_store, monkeypatch):
    from nsd_zarr.maintenance import verify as module

    store, real = copy_store("with"), module.check_store

    def check_after_attach(opened, *words):
        with monkeypatch.context() as patch:
            patch.setattr(module, "check_store", real)
            nsd_zarr.attach(store, no_experiment=True)
        return real(opened, *words)

    monkeypatch.setattr(module, "check_store", check_after_attach)
    assert nsd_zarr.verify(store).is_whole
    monkeypatch.undo()
    (store / "session/c/0").unlink()
    assert not nsd_zarr.verify(store).is_whole
