"""Regions by name on a root with the dataset's own sets and codings, against nibabel's selection on its files."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError
from nsd_zarr.simulate import Simulation, simulate_root

SHAPE = (11, 7, 5)
"""(x, y, z) as nibabel has it."""
SETS = {
    "floc-faces": ("subj01", ["OFA", "FFA-1", "FFA-2"]),
    "HCP_MMP1": ("fsaverage", ["V1", "MST", "V6"]),
    "prf-visualrois": ("subj01", ["V1v", "V1d", "V2v", "V2d"]),
    "MTL": ("templates", ["CA1", "CA23DG", "ERC"]),
}


def make_sides(name, rng):
    """Labels of both hemispheres, the same numbers in both; a few voxels that both claim."""
    labels = len(SETS[name][1])
    outside = 0 if name == "MTL" else -1
    x = np.arange(SHAPE[0])[:, np.newaxis, np.newaxis]
    values = rng.integers(0, labels + 1, (2, *SHAPE))
    return np.where(x < 7, values[0], outside), np.where(x > 4, values[1], outside)


@pytest.fixture(scope="module")
def nsd(tmp_path_factory):
    """A root, and the volumes of its sets by file name."""
    root = simulate_root(tmp_path_factory.mktemp("regions") / "nsd", Simulation(2, (6, *SHAPE[::-1])))
    affine, rng, files = nibabel.load(root.brainmask).affine, np.random.default_rng(7), {}
    folder = root.rois["streams"].parent
    for path in folder.glob("*.nii.gz"):
        path.unlink()
    for name, (place, labels) in SETS.items():
        left, right = make_sides(name, rng)
        whole = np.where(left == (0 if name == "MTL" else -1), right, left)
        files |= {name: whole, f"lh.{name}": left, f"rh.{name}": right}
        table = root.root / (f"nsddata/freesurfer/{place}/label/{name}.mgz.ctab" if place != "templates" else "")
        if place == "templates":
            table = root.root / f"nsddata/templates/{name}.ctab"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(f"{number} {word}\n" for number, word in enumerate(["Unknown", *labels])))
    files["lh.alone"] = files["lh.floc-faces"]
    for name, values in files.items():
        nibabel.save(nibabel.Nifti1Image(values.astype("f4"), affine), folder / f"{name}.nii.gz")
    report = nsd_zarr.convert(root.root, root.root / "store.zarr", workers=1)
    return root.root / "store.zarr", folder, report


@pytest.fixture
def ds(nsd):
    return nsd_zarr.open_dataset(nsd[0])


@pytest.fixture
def read(nsd):
    """A volume of the dataset's own files as nibabel reads it, transposed to (z, y, x)."""
    return lambda name: np.asarray(nibabel.load(nsd[1] / f"{name}.nii.gz").dataobj).transpose(2, 1, 0)


def find_places(region):
    return [region[axis].values.tolist() for axis in "zyx"]


def expect(mask):
    return [places.tolist() for places in np.nonzero(mask)]


@pytest.mark.parametrize("side", ["lh", "rh"])
def test_left_and_right_ffa_are_those_of_their_files(side, ds, read):
    found = ds.nsd.roi("FFA-1", hemisphere=side)
    assert find_places(found) == expect(read(f"{side}.floc-faces") == 2)
    assert set(found.hemisphere.values) == {side}
    assert set(found.roi.values) == {"floc-faces"}
    assert set(found.label.values) == {"FFA-1"}
    assert found.attrs["roi"] == f"floc-faces [2] {side}"


def test_region_of_both_hemispheres_says_on_which_side_each_voxel_is(ds, read):
    found = ds.nsd.roi("FFA-1")
    mask = read("floc-faces") == 2
    left, right = ((read(f"{side}.floc-faces") == 2)[mask] for side in ("lh", "rh"))
    assert find_places(found) == expect(mask)
    words = np.select([left & right, left, right], ["both", "lh", "rh"], "")
    assert found.hemisphere.values.tolist() == words.tolist()
    assert {"lh", "rh", "both"} <= set(words)


def test_v1_of_the_subject_and_v1_of_the_atlas(ds, read):
    own, atlas = ds.nsd.roi("V1v", "V1d"), ds.nsd.roi("HCP_MMP1", labels="V1")
    assert find_places(own) == expect(np.isin(read("prf-visualrois"), [1, 2]))
    assert find_places(atlas) == expect(read("HCP_MMP1") == 1)
    assert set(own.roi.values) == {"prf-visualrois"}
    assert set(own.label.values) == {"V1v", "V1d"}
    with pytest.raises(ConfigError) as caught:
        ds.nsd.roi("V1")
    assert 'roi("HCP_MMP1", labels="V1")' in str(caught.value)
    assert 'roi("V1v", "V1d")' in str(caught.value)


@pytest.mark.parametrize(("label", "number"), [("CA1", 1), ("CA23DG", 2), ("ERC", 3)])
def test_parts_of_mtl_are_named_by_the_templates(label, number, ds, read):
    assert find_places(ds.nsd.roi(label)) == expect(read("MTL") == number)
    assert find_places(ds.nsd.roi(label, hemisphere="rh")) == expect(read("rh.MTL") == number)


def test_of_several_regions_the_first_that_has_a_voxel_names_it(ds, read):
    found = ds.nsd.roi(["FFA-1", "CA1"])
    faces, mtl = read("floc-faces") == 2, read("MTL") == 1
    assert find_places(found) == expect(faces | mtl)
    assert found.label.values.tolist() == np.where(faces, "FFA-1", "CA1")[faces | mtl].tolist()
    inside = found.nsd.roi("MTL")
    assert find_places(inside) == expect((faces | mtl) & (read("MTL") > 0))
    assert set(inside.roi.values) == {"MTL"}
    assert inside.attrs["roi"] == "MTL of floc-faces [2], MTL [1]"


def test_lone_hemisphere_is_kept_with_a_note(nsd, ds, read):
    assert "alone has a volume of the left hemisphere and none of the right one" in nsd[2].experiment.notes
    assert find_places(ds.nsd.roi("alone")) == expect(read("lh.alone") > 0)
    assert set(ds.nsd.roi("alone").hemisphere.values) == {"lh"}
    with pytest.raises(ConfigError, match="no voxel"):
        ds.nsd.roi("alone", hemisphere="rh")


def test_table_of_regions_counts_what_the_files_hold(ds, read):
    table = ds.nsd.rois
    for name, (_, labels) in SETS.items():
        rows = table[table.roi == name]
        assert rows.label.tolist() == labels
        for column, file in {"voxels": name, "lh": f"lh.{name}", "rh": f"rh.{name}"}.items():
            assert rows[column].tolist() == [np.count_nonzero(read(file) == number) for number in rows.number]
    assert table.groupby("roi").origin.first().to_dict() == {
        "HCP_MMP1": "atlas",
        "MTL": "drawn in the subject",
        "alone": "",
        "brainmask": "mask",
        "floc-faces": "drawn in the subject",
        "prf-visualrois": "drawn in the subject",
    }
    mask = table[table.roi == "brainmask"]
    assert mask.voxels.item() == ds.brainmask.values.sum()
    assert mask.lh.isna().all()


def test_hemispheres_survive_selection_memory_and_dask(nsd, read):
    left = read("lh.floc-faces")[1:4] == 2
    for options in ({}, {"chunks": {}}):
        part = nsd_zarr.open_dataset(nsd[0], **options).isel(z=slice(1, 4))
        found = part.nsd.roi("FFA-1", hemisphere="lh")
        assert find_places(found) == [[z + 1 for z in np.nonzero(left)[0]], *expect(left)[1:]]
        assert part.load().nsd.roi("FFA-1", hemisphere="lh").sizes["voxel"] == left.sum()


def test_voxel_order_of_nibabel_is_one_line_away(ds, nsd):
    """docs/reading.md: voxels come in C order of (z, y, x); masks of nibabel's arrays give that of (x, y, z)."""
    region = ds.nsd.roi("floc-faces")
    again = region.isel(voxel=np.lexsort((region.z, region.y, region.x)))
    mask = np.asarray(nibabel.load(nsd[1] / "floc-faces.nii.gz").dataobj) > 0
    assert [again[axis].values.tolist() for axis in "xyz"] == expect(mask)


def test_nifti_has_the_codes_of_the_datasets_own_headers(ds):
    image = ds.nsd.to_nifti(0)
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    assert np.allclose(nibabel.Nifti1Image.from_bytes(image.to_bytes()).affine, ds.affine.values)
