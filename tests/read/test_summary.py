"""`ds.nsd` shows what it holds and what may be asked of it, in text and HTML, and reads no trial for that."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

import nsd_zarr


@pytest.fixture
def ds(experiment):
    return nsd_zarr.open_dataset(experiment.path)


def test_summary_lists_trials_sessions_regions_labels_and_questions(ds, experiment, reads):
    text = repr(ds.nsd)
    sessions = np.unique(experiment.session)
    assert re.search(
        rf"trials +{experiment.store.trials} in {len(sessions)} sessions, {sessions[0]} to {sessions[-1]}\n", text
    )
    table = ds.nsd.rois
    for roi in set(table.roi):
        if roi != "brainmask":
            (line,) = re.findall(rf"^  region {re.escape(roi)} +(.*)$", text, re.MULTILINE)
            assert line.split(", ")[0] == table[table.roi == roi].label.tolist()[0]
    for question in ('zscore("session")', 'split("shared1000")', "noise_ceiling(3)", "roi("):
        assert question in text
    assert reads.trials == []


def test_what_is_not_there_is_not_offered(source, convert):
    text = repr(nsd_zarr.open_dataset(convert(source)).nsd)
    assert 'zscore("session")' in text
    for question in ("roi(", "split(", "noise_ceiling", "to_nifti", "region"):
        assert question not in text


@pytest.mark.parametrize("kind", ["selection", "one trial", "region", "means", "no betas", "no trials"])
def test_every_dataset_has_a_summary(kind, ds):
    made = {
        "selection": lambda: ds.isel(trial=[3, 17, 5]),
        "one trial": lambda: ds.isel(trial=3),
        "region": lambda: ds.nsd.roi("nsdgeneral"),
        "means": lambda: ds.nsd.average_repeats(),
        "no betas": lambda: ds.drop_vars("betas"),
        "no trials": lambda: ds.isel(trial=[]),
    }[kind]()
    assert repr(made.nsd).startswith("<ds.nsd>")
    assert made.nsd._repr_html_().startswith("<table>")
    words = {"selection": "trials", "region": "voxel", "means": "images", "no betas": "none in this dataset"}
    assert words.get(kind, "<ds.nsd>") in repr(made.nsd)


def test_names_of_files_reach_neither_terminal_nor_html():
    bad = "\x1b]0;x\x07\u202e<script>"
    attributes = {"flag_values": np.array([1], np.int16), "flag_meanings": f"V1{bad}"}
    ds = xr.Dataset(
        {
            "betas": (("trial", "z", "y", "x"), np.zeros((2, 1, 1, 1), np.float32)),
            f"roi_a{bad}": (("z", "y", "x"), np.ones((1, 1, 1), np.int16), attributes),
        },
        attrs={"subject": bad},
    )
    text, html = repr(ds.nsd), ds.nsd._repr_html_()
    assert "\\x1b" in text
    assert "&lt;script&gt;" in html
    assert not set("\x1b\x07\u202e") & set(text + html)
    assert "<script" not in html
