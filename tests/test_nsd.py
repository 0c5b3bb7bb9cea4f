"""Facts of the dataset agree with each other and with what its documents print."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nsd_zarr import nsd


def test_counts_of_the_experiment_agree():
    assert sum(nsd.SESSIONS_OF_SUBJECT.values()) == 284
    assert nsd.TRIALS_PER_SESSION * nsd.MAX_SESSIONS == 30_000 == nsd.MAX_EXPERIMENT_TRIALS
    assert 6 * (nsd.TRIALS_OF_ODD_RUN + nsd.TRIALS_OF_EVEN_RUN) == nsd.TRIALS_PER_SESSION
    assert nsd.SHARED_IMAGES + 8 * (nsd.IMAGES_PER_SUBJECT - nsd.SHARED_IMAGES) == nsd.ALL_IMAGES == 73_000


def test_region_sets_have_the_numbers_of_labels_that_the_authors_print():
    counts = {roi.name: len(roi.labels) for roi in nsd.ROI_SETS}
    documented = {
        **{"nsdgeneral": 1, "Kastner2015": 25, "HCP_MMP1": 180, "corticalsulc": 28, "streams": 7, "prf-eccrois": 5},
        **{"prf-visualrois": 7, "floc-faces": 5, "floc-words": 5, "floc-places": 3, "floc-bodies": 4},
    }
    assert {name: counts[name] for name in documented} == documented
    assert set(counts) - set(documented) == {"MTL", "thalamus"} == set(nsd.SETS_OF_TEMPLATES)
    assert all(len(set(roi.labels)) == len(roi.labels) for roi in nsd.ROI_SETS)
    assert nsd.ATLASES == ("Kastner2015", "HCP_MMP1")


def test_paths_are_those_of_the_dataset():
    paths = nsd.NsdPaths(Path("/nsd"), 7, "func1mm", "betas_fithrf")
    betas = "/nsd/nsddata_betas/ppdata/subj07/func1mm/betas_fithrf"
    assert str(paths.session_file(5)) == f"{betas}/betas_session05.hdf5"
    assert str(paths.session_file(5, "rh")) == f"{betas}/rh.betas_session05.hdf5"
    assert str(paths.ncsnr) == f"{betas}/ncsnr.nii.gz"
    assert str(paths.valid(12)) == "/nsd/nsddata/ppdata/subj07/func1mm/valid_session12.nii.gz"
    assert str(paths.roi("MTL", "lh")) == "/nsd/nsddata/ppdata/subj07/func1mm/roi/lh.MTL.nii.gz"
    labels = {roi.name: str(paths.labels(roi)) for roi in nsd.ROI_SETS}
    assert labels["MTL"] == "/nsd/nsddata/templates/MTL.ctab"
    assert labels["prf-visualrois"] == "/nsd/nsddata/freesurfer/subj07/label/prf-visualrois.mgz.ctab"
    assert labels["streams"] == "/nsd/nsddata/freesurfer/fsaverage/label/streams.mgz.ctab"


def test_session_file_at_its_own_place_tells_the_root():
    paths = nsd.NsdPaths(Path("/data/nsd"), 3, "nativesurface", "betas_assumehrf")
    assert nsd.locate_session_file(paths.session_file(31, "lh")) == paths


@pytest.mark.parametrize("place", ["betas_session01.hdf5", "subj01/a/b/betas_session01.hdf5"])
def test_session_file_elsewhere_has_no_root(place, tmp_path):
    assert nsd.locate_session_file(tmp_path / place) is None


def test_every_column_of_the_trial_table_has_one_rule():
    names = [*nsd.COLUMN_RANGES, "TIME", *nsd.COLUMNS_WITH_NAN]
    assert sorted(names) == sorted(nsd.RESPONSE_COLUMNS)
    assert len(nsd.RESPONSE_COLUMNS) == 19


def test_facts_import_nothing_of_ours():
    code = "import sys, nsd_zarr.nsd; print(sorted(name for name in sys.modules if name.startswith('nsd_zarr')))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    # Beside the package itself, which has xarray know of it.
    assert found.stdout == "['nsd_zarr', 'nsd_zarr.nsd', 'nsd_zarr.registration']\n"


def test_no_module_repeats_the_facts():
    package = Path(nsd.__file__).parent
    literal = re.compile(r"\"(imgBrick|responses\.tsv|nsd_expdesign\.mat|brainmask\.nii\.gz)\"|73_?000\b(?!\.)")
    found = [
        f"{path.relative_to(package)}:{number}"
        for path in package.rglob("*.py")
        if path.name != "nsd.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if literal.search(line) and '"""' not in line and not line.lstrip().startswith("(73000")
    ]
    assert found == []
