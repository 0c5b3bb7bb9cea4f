import pandas as pd

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root

RECIPE = {"sessions": 3, "shape": (12, 5, 11, 7), "rois": ("nsdgeneral",)}


def test_mess_adds_files_cuts_the_table_and_leaves_every_session_file(tmp_path):
    plain = simulate_root(tmp_path / "plain", Simulation(**RECIPE))
    messy = simulate_root(tmp_path / "messy", Simulation(**RECIPE, mess=True))
    names = {str(path.relative_to(messy.root)) for path in messy.root.rglob("*") if path.is_file()}
    before = {str(path.relative_to(plain.root)) for path in plain.root.rglob("*") if path.is_file()}
    assert {name.rpartition("/")[2] for name in names - before} == {
        *(".DS_Store", "._nsdgeneral.nii.gz", "betas_session04.hdf5.6eF12aB3", "mymap.nii.gz", "othersubject.nii.gz"),
    }
    for one, other in zip(plain.session_files, messy.session_files, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert pd.read_csv(messy.trial_table, sep="\t")["SESSION"].unique().tolist() == [1, 2]


def test_messy_root_converts_and_names_what_it_leaves_out(tmp_path):
    messy = simulate_root(tmp_path / "messy", Simulation(**RECIPE, mess=True))
    report = nsd_zarr.convert(messy.betas_folder, tmp_path / "new.zarr")
    notes = " ".join(report.experiment.notes)
    assert "mymap.nii.gz" in notes
    assert "othersubject.nii.gz" in notes
