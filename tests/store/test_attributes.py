"""The root attributes: what zarr-python reads there, parsed once; other forms of them are damage."""

from __future__ import annotations

import json

import pytest
import zarr

from nsd_zarr.errors import DamageFound
from nsd_zarr.store.foreign.open import open_any
from nsd_zarr.store.format import make_root_metadata
from nsd_zarr.store.root import open_store


def test_root_attributes_are_what_zarr_python_reads(experiment):
    found, theirs = open_store(experiment.path).attributes, dict(zarr.open_group(experiment.path, mode="r").attrs)
    assert (found.format, found.format_version, found.status) == ("nsd_zarr", 1, "complete")
    assert (found.checksum, found.settings, found.libraries) == (
        theirs["checksum"],
        theirs["settings"],
        theirs["libraries"],
    )
    assert found.dataset == theirs["settings"]["dataset"]
    assert [(source.part, source.name, source.size, source.digest) for source in found.sources] == [
        (source["session"], source["name"], source["size"], source["digest"]) for source in theirs["sources"]
    ]
    assert dict(found.origin) == {name: theirs[name] for name in ("subject", "space", "betas") if name in theirs}
    assert [*found.notes, *found.experiment_notes] == theirs.get("notes", []) + theirs.get("experiment_notes", [])
    assert dict(found.document) == {name: value for name, value in theirs.items() if name != "manifest"}


@pytest.mark.parametrize(
    "wrong", [{"notes": "text"}, {"experiment_notes": [1]}, {"format_minor": "1"}, {"settings": []}, {"libraries": 7}]
)
def test_root_attributes_of_another_form_are_damage(volumes, tmp_path, wrong):
    path = volumes.copy_to(tmp_path / "copied.zarr").path
    document = json.loads((path / "zarr.json").read_bytes())
    attributes = document["attributes"] | wrong
    (path / "zarr.json").write_bytes(make_root_metadata(attributes, document["consolidated_metadata"]["metadata"]))
    with pytest.raises(DamageFound, match="the root document is damaged"):
        open_store(path)


def test_copy_by_another_tool_is_described_without_trusting_its_attributes(volumes, tmp_path):
    ours = open_store(volumes.path)
    copied = zarr.create_group(
        tmp_path / "copy.zarr", attributes={"format": "nsd_zarr", "format_version": 1, "notes": 5}
    )
    betas = zarr.open_array(volumes.path / "betas", mode="r")
    copied.create_array("betas", data=betas[...], chunks=(1, *betas.shape[1:]))
    found = open_any(tmp_path / "copy.zarr").attributes
    assert (found.format, found.sources, found.notes, found.dataset) == ("nsd_zarr", (), (), "")
    assert found.document["notes"] == 5
    assert found.checksum not in ("", ours.fingerprint)
