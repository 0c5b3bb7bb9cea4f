"""A store with a group for each subject, opened as a DataTree."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import xarray as xr

import nsd_zarr
from nsd_zarr.errors import ConfigError, DamageFound, StoreError


def test_nodes_are_what_open_dataset_gives(whole_tree, subjects):
    tree = nsd_zarr.open_tree(whole_tree)
    assert list(tree.children) == ["subj01", "subj02"]
    for subject in (1, 2):
        node = tree[f"subj0{subject}"].to_dataset()
        xr.testing.assert_identical(node, nsd_zarr.open_dataset(whole_tree / f"subj0{subject}"))
        assert node.betas.dtype == np.float32
        counts = subjects.read_counts(subject)
        np.testing.assert_array_equal(node.betas.values, np.float32(counts) / np.float32(300))


def test_xarray_finds_the_engine_by_itself(whole_tree):
    xr.testing.assert_identical(xr.open_datatree(whole_tree), nsd_zarr.open_tree(whole_tree))
    assert set(xr.open_groups(whole_tree)) == {"/", "/subj01", "/subj02"}
    by_group = xr.open_dataset(whole_tree, group="subj02")
    xr.testing.assert_identical(by_group, nsd_zarr.open_dataset(whole_tree / "subj02"))


def test_nothing_of_the_trials_is_read_before_it_is_asked_for(tree):
    (tree / "subj01/betas/c/1/0/0/0").unlink()
    node = nsd_zarr.open_tree(tree)["subj01"]
    assert node.betas[0].values.shape == (7, 5, 3)
    with pytest.raises(DamageFound, match="trial 12"):
        node.betas[12].load()


def test_ds_nsd_of_a_node_reads_by_meaning(whole_tree):
    tree, alone = nsd_zarr.open_tree(whole_tree), nsd_zarr.open_dataset(whole_tree / "subj02")
    node = tree["subj02"].to_dataset()
    np.testing.assert_array_equal(node.nsd.roi("nsdgeneral").betas, alone.nsd.roi("nsdgeneral").betas)
    np.testing.assert_array_equal(node.nsd.zscore("session").betas, alone.nsd.zscore("session").betas)


def test_counts_chunks_and_chosen_subjects(whole_tree, subjects):
    tree = nsd_zarr.open_tree(whole_tree, subjects=2, raw=True, chunks={})
    assert list(tree.children) == ["subj02"]
    assert tree["subj02"].betas.chunks[0] == (12, 12, 12)
    np.testing.assert_array_equal(tree["subj02"].betas.values, subjects.read_counts(2))
    assert tree.map_over_datasets(lambda ds: ds.mean() if "betas" in ds else ds)["subj02"].betas.ndim == 0


def test_subject_that_is_not_finished_is_not_shown_and_refused_where_it_is_asked_for(tree, subjects):
    nsd_zarr.convert(subjects.root, tree, subjects=[1])
    root = tree / "subj02/zarr.json"
    root.write_bytes(root.read_bytes().replace(b'"status": "complete"', b'"status": "incompl."'))
    with pytest.raises(DamageFound) as caught:
        nsd_zarr.open_tree(tree)
    assert caught.value.subject == 2
    assert list(nsd_zarr.open_tree(tree, subjects=[1]).children) == ["subj01"]
    with pytest.raises(StoreError, match="subject 5: no such store"):
        nsd_zarr.open_tree(tree, subjects=[1, 5])


def test_store_of_one_subject_is_a_tree_with_nothing_below(whole_tree):
    tree = xr.open_datatree(whole_tree / "subj01")
    xr.testing.assert_identical(tree.to_dataset(), nsd_zarr.open_dataset(whole_tree / "subj01"))
    assert not tree.children


def test_dataset_of_a_tree_is_refused_with_the_way_out(whole_tree):
    for call in (nsd_zarr.open_dataset, xr.open_dataset):
        with pytest.raises(StoreError, match=r'such as ".*/subj01", or open them all: nsd_zarr.open_tree'):
            call(whole_tree)


def test_tree_of_a_later_version_is_refused(tree):
    document = json.loads((tree / "zarr.json").read_bytes())
    document["attributes"]["format_version"] = 2
    (tree / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="format version 2, expected 1"):
        nsd_zarr.open_tree(tree)


def test_options_that_are_not_taken_are_refused(whole_tree):
    with pytest.raises(ConfigError, match="open_tree: unknown option 'subject'"):
        nsd_zarr.open_tree(whole_tree, subject=1)
    with pytest.raises(ConfigError, match="subjects = '0': expected subject numbers"):
        nsd_zarr.open_tree(whole_tree, subjects="0")


def test_tree_pickles_and_closes(whole_tree):
    tree = nsd_zarr.open_tree(whole_tree)
    again = pickle.loads(pickle.dumps(tree))
    np.testing.assert_array_equal(again["subj01"].betas[3].values, tree["subj01"].betas[3].values)
    tree.close()
