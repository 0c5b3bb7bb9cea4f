"""Stores of format 1.0, from before `shared515` and `hemispheres_NAME`: read as they are, and brought up to 1.1."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from golden.stores import COLUMNS
from scipy.io import savemat

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError

FORMER = Path(__file__).parent.parent / "data/store_of_format_1_0.zip"
"""A store of two sessions of 12 trials with its experiment, by version 0.1.0."""


@pytest.fixture
def former(tmp_path):
    """Its folder."""
    with zipfile.ZipFile(FORMER) as archive:
        archive.extractall(tmp_path / "subj01.zarr")
    return tmp_path / "subj01.zarr"


@pytest.fixture
def files(former, tmp_path):
    """The trial table behind it, and a design that agrees; of its images three are shown thrice in the 30 sessions."""
    group = zarr.open_group(former, mode="r")
    ids, images = (group[name][...].astype(int) for name in ("image_10k", "nsd_id"))
    frame = pd.DataFrame(0, index=np.arange(24), columns=COLUMNS)
    frame["SUBJECT"], frame["SESSION"], frame["RUN"] = 1, group["session"][...], group["run"][...]
    frame["TRIAL"], frame["10KID"], frame["73KID"] = group["trial_in_run"][...], ids, images + 1
    frame.to_csv(tmp_path / "responses.tsv", sep="\t", index=False)
    subjectim = np.full((8, 10_000), 73_000.0)
    subjectim[0, ids - 1] = images + 1
    once = [image for image, times in pd.Series(ids).value_counts().items() if times == 1][:3]
    ordering = np.array([*ids, *once, *once, *np.arange(5000, 5000 + 30 * 12)], "f8")
    savemat(tmp_path / "nsd_expdesign.mat", {"masterordering": ordering, "subjectim": subjectim})
    first = pd.Series(ordering[: 30 * 12].astype(int)).value_counts()
    shared = [image for image, times in first.items() if times == 3 and image <= 1000]
    options = {"trial_table": tmp_path / "responses.tsv", "expdesign": tmp_path / "nsd_expdesign.mat"}
    return options, np.isin(ids, shared)


def read_attributes(store):
    return json.loads((store / "zarr.json").read_bytes())["attributes"]


def test_store_of_format_1_0_is_whole_and_means_what_it_meant(former, run_cli):
    assert nsd_zarr.verify(former).is_whole
    ds, group = nsd_zarr.open_dataset(former), zarr.open_group(former, mode="r")
    assert np.array_equal(ds.betas.values, group["betas"][...] / np.float32(300))
    regions = group["roi_nsdgeneral"][...]
    assert np.array_equal(ds.nsd.roi("nsdgeneral").betas.values, ds.betas.values[:, regions > 0])
    assert ds.nsd.split("shared1000").test.sizes["trial"] == group["shared1000"][...].sum()
    with pytest.raises(ConfigError, match="does not know the hemispheres"):
        ds.nsd.roi("nsdgeneral", hemisphere="lh")
    assert "format version 1.0" in run_cli("info", former).out


def test_store_of_format_1_0_refuses_the_515_images_and_names_the_way(former):
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset

    for split in (nsd_zarr.open_dataset(former).nsd.split, lambda name: TrialDataset(former, trials=name)):
        with pytest.raises(StoreError, match="attach STORE NSD_ROOT"):
            split("shared515")


def test_attach_gives_a_store_of_format_1_0_the_column_and_takes_it_again(former, files):
    options, expected = files
    assert expected.any()
    nsd_zarr.attach(former, **options)
    assert (read_attributes(former)["format_version"], read_attributes(former)["format_minor"]) == (1, 1)
    assert nsd_zarr.verify(former).is_whole
    assert np.array_equal(zarr.open_group(former, mode="r")["shared515"][...], expected)
    ds = nsd_zarr.open_dataset(former)
    tested = ds.nsd.split("shared515").test
    assert np.array_equal(tested.session, ds.session[expected])
    assert np.array_equal(tested.trial_in_session, ds.trial_in_session[expected])
    nsd_zarr.attach(former, no_experiment=True)
    assert "format_minor" not in read_attributes(former)
    assert not (former / "shared515").exists()


def test_loader_takes_the_515_images_from_the_column(former, files):
    pytest.importorskip("torch")
    from nsd_zarr.torch import TrialDataset

    options, expected = files
    nsd_zarr.attach(former, **options)
    dataset = TrialDataset(former, trials="shared515")
    assert [dataset[place]["trial"] for place in range(len(dataset))] == np.flatnonzero(expected).tolist()
