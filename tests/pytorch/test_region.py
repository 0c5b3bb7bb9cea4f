"""Voxels, z-scores and splits in TrialDataset and TrialLoader, against ds.nsd."""

import pickle

import nibabel
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

import nsd_zarr  # noqa: E402
from nsd_zarr.errors import ConfigError, ResumeRefused, StoreError  # noqa: E402
from nsd_zarr.simulate import Simulation, simulate_root  # noqa: E402
from nsd_zarr.torch import TrialDataset, TrialLoader, to_percent  # noqa: E402


@pytest.fixture
def ds(experiment):
    return nsd_zarr.open_dataset(experiment.path)


def load(loader):
    """Valid rows of all batches, put together."""
    batches = [{name: value.clone() for name, value in batch.items()} for batch in loader]
    return {name: torch.cat([batch[name][batch["valid"]] for batch in batches]).numpy() for name in batches[0]}


REGIONS = {
    "ROI": "nsdgeneral",
    "label": "V2d",
    "several": ["V2d", "nsdgeneral"],
    "labels": {"prf-visualrois": ["V2d", 5], "Kastner2015": 3},
}


@pytest.mark.parametrize("name", REGIONS)
def test_region_by_name_equals_the_accessors(experiment, ds, name):
    region = REGIONS[name]
    if isinstance(region, dict):
        visual, other = experiment.arrays["roi_prf-visualrois"], experiment.arrays["roi_Kastner2015"]
        expected = ds.nsd.roi(mask=np.isin(visual, [4, 5]) | (other == 3))
    else:
        expected = ds.nsd.roi(*([region] if isinstance(region, str) else region))
    missing = expected.nsd.missing.sel(session_number=expected.session).values
    expected = np.where(missing, 0, expected.betas.values)
    dataset = TrialDataset(experiment.path, roi=region)
    assert dataset[7]["betas"].shape == expected.shape[1:]
    assert np.array_equal(dataset[7]["betas"].numpy(), expected[7])
    assert np.array_equal(load(TrialLoader(dataset, 8))["betas"], expected)


@pytest.fixture(scope="module")
def sided(tmp_path_factory):
    """A root with volumes of the hemispheres, and a store of it."""
    recipe = Simulation(2, (6, 13, 17, 11), rois=("prf-visualrois",))
    root = simulate_root(tmp_path_factory.mktemp("sided") / "nsd", recipe)
    nsd_zarr.convert(root.betas_folder, root.root / "store.zarr")
    return root


@pytest.mark.parametrize("side", ["lh", "rh"])
@pytest.mark.parametrize(
    ("region", "numbers"), [("V1v", [1]), (["V1d", "V2v"], [2, 3]), ({"prf-visualrois": ["V1v", 4]}, [1, 4])]
)
def test_region_of_a_hemisphere_is_that_of_its_file(sided, side, region, numbers):
    volume = nibabel.load(sided.root / f"nsddata/ppdata/subj01/func1pt8mm/roi/{side}.prf-visualrois.nii.gz")
    mask = np.isin(np.asarray(volume.dataobj).transpose(2, 1, 0), numbers)
    dataset = TrialDataset(sided.root / "store.zarr", roi=region, hemisphere=side, missing="nan")
    assert f"hemisphere='{side}'" in repr(dataset)
    assert np.array_equal(dataset.voxels, np.flatnonzero(mask))
    expected = nsd_zarr.open_dataset(sided.root / "store.zarr").betas.values[:, mask]
    found = load(TrialLoader(pickle.loads(pickle.dumps(dataset)), 5))["betas"]
    has_data = ~np.isnan(found)
    assert has_data.any()
    assert np.array_equal(found[has_data], expected[has_data])
    dropped = TrialDataset(sided.root / "store.zarr", roi=region, hemisphere=side, missing="drop")
    assert set(dropped.voxels) == set(dataset.voxels[has_data.all(0)])


def test_region_by_mask_or_indices(experiment):
    mask = experiment.arrays["roi_nsdgeneral"] > 0
    flat = np.array([164, 3, 70, 3])
    for roi, expected in (
        (mask, experiment.trained[:, mask]),
        (np.where(mask, 1, -1), experiment.trained[:, mask]),
        (flat, experiment.trained.reshape(42, -1)[:, flat]),
        (flat - 165, experiment.trained.reshape(42, -1)[:, flat]),
    ):
        assert np.array_equal(load(TrialLoader(TrialDataset(experiment.path, roi=roi), 8))["betas"], expected)


def test_surface_is_selected_by_mask_or_vertices(surfaces):
    mask = np.arange(23) % 3 == 1
    for roi in (mask, np.flatnonzero(mask)):
        found = TrialDataset(surfaces.path, roi=roi)[5]["betas"].numpy()
        assert np.array_equal(found, surfaces.percent[5][mask])


@pytest.mark.parametrize("roi", [None, "nsdgeneral"])
def test_zscore_equals_the_accessors(experiment, ds, roi):
    expected = (ds if roi is None else ds.nsd.roi(roi)).nsd.zscore("session").betas.fillna(0).values
    dataset = TrialDataset(experiment.path, roi=roi, zscore="session")
    found = load(TrialLoader(dataset, 8, shuffle=True, seed=4, threads=3))
    assert sorted(found["trial"].tolist()) == list(range(42))
    assert np.array_equal(found["betas"], expected[found["trial"]])
    assert np.array_equal(dataset[33]["betas"].numpy(), expected[33])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_region_in_half_precision_is_rounded_once(experiment, ds, dtype):
    expected = torch.from_numpy(ds.nsd.roi("V2d").nsd.zscore().betas.values).to(dtype)
    dataset = TrialDataset(experiment.path, roi="V2d", zscore="session", dtype=dtype)
    batches = list(TrialLoader(dataset, 14))
    assert torch.equal(torch.cat([batch["betas"] for batch in batches]), expected)


def test_raw_region_scales_to_the_same_percent(experiment, ds):
    (batch,) = TrialLoader(TrialDataset(experiment.path, roi="nsdgeneral", raw=True), 42)
    assert batch["betas"].dtype == torch.int16
    assert np.array_equal(to_percent(batch)["betas"].numpy(), ds.nsd.roi("nsdgeneral").betas.values)


@pytest.mark.parametrize(("word", "test"), [("train", False), ("test", True), ("shared1000", True)])
def test_words_select_trials_of_the_split(experiment, word, test):
    expected = np.flatnonzero(experiment.arrays["shared1000"] == test)
    dataset = TrialDataset(experiment.path, trials=word)
    assert [sample["trial"] for sample in dataset] == expected.tolist()
    assert len(TrialLoader(dataset, 1)) == len(expected)


def test_sample_and_batch_carry_the_trial_table(experiment):
    dataset = TrialDataset(experiment.path)
    sample = dataset[30]
    assert list(sample)[4:] == ["nsd_id", "image_10k", "repeat", "shared1000"]
    for name in list(sample)[4:]:
        assert sample[name] == experiment.arrays[name][30]
        assert type(sample[name]) in (int, bool)
    found = load(TrialLoader(dataset, 8, shuffle=True))
    for name in ("nsd_id", "image_10k", "repeat", "shared1000"):
        assert np.array_equal(found[name], experiment.arrays[name][found["trial"]])
    last = list(TrialLoader(dataset, 8))[-1]
    assert last["nsd_id"][~last["valid"]].tolist() == [-1] * 6
    assert last["shared1000"].dtype == torch.bool


def test_stock_loader_collates_a_region(experiment, ds):
    loader = DataLoader(TrialDataset(experiment.path, roi="V2d", zscore="session"), 9)
    found = torch.cat([batch["betas"] for batch in loader]).numpy()
    assert np.array_equal(found, ds.nsd.roi("V2d").nsd.zscore().betas.values)


def test_pickle_is_small_and_resolves_names_again(experiment):
    dataset = TrialDataset(experiment.path, trials="test", roi=["nsdgeneral", "V2d"], zscore="session")
    dataset[0]
    data = pickle.dumps(dataset)
    assert len(data) < 4096
    again = pickle.loads(data)
    assert np.array_equal(again[1]["betas"].numpy(), dataset[1]["betas"].numpy())
    assert [sample["trial"] for sample in again] == [sample["trial"] for sample in dataset]


@pytest.mark.parametrize("other", [{"roi": None}, {"roi": "V3v"}, {"zscore": None}, {"trials": "train"}], ids=str)
def test_loader_state_of_other_voxels_or_scores_is_refused(experiment, other):
    options = {"roi": "V2d", "zscore": "session", "trials": None}
    state = TrialLoader(TrialDataset(experiment.path, **options), 4).state_dict()
    TrialLoader(TrialDataset(experiment.path, **options), 4).load_state_dict(state)
    with pytest.raises(ResumeRefused):
        TrialLoader(TrialDataset(experiment.path, **options | other), 4).load_state_dict(state)


def test_one_sample_of_a_region_reads_one_trial(experiment):
    loader = TrialLoader(TrialDataset(experiment.path, roi="nsdgeneral"), 4)
    batch = next(iter(loader))
    assert batch["betas"].shape == (4, (experiment.arrays["roi_nsdgeneral"] > 0).sum())


REFUSED = {
    "raw z-scores": ({"raw": True, "zscore": "session"}, ConfigError, "counts cannot be z-scored"),
    "z-scores by run": ({"zscore": "run"}, ConfigError, "expected 'session'"),
    "unknown word": ({"trials": "validation"}, ConfigError, "Choose one of train"),
    "unknown region": ({"roi": "V1"}, ConfigError, "There are "),
    "mask of another shape": ({"roi": np.ones((3, 11, 5), bool)}, ConfigError, "transpose"),
    "hemisphere of no region": ({"hemisphere": "lh"}, ConfigError, 'roi="nsdgeneral", hemisphere="lh"'),
    "hemisphere of a mask": ({"roi": np.array([3]), "hemisphere": "lh"}, ConfigError, "a region that is named"),
    "hemisphere of another name": ({"roi": "V2d", "hemisphere": "left"}, ConfigError, '"lh" or "rh"'),
    "hemispheres not in the store": ({"roi": "V2d", "hemisphere": "rh"}, ConfigError, "hemispheres of prf-visualrois"),
    "voxel outside": ({"roi": np.array([165])}, IndexError, "165"),
    "too few sessions": ({"trials": "shared515"}, StoreError, "sessions 1 to 30"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_request_that_makes_no_sense_is_refused(experiment, name):
    options, error, match = REFUSED[name]
    with pytest.raises(error, match=match):
        TrialDataset(experiment.path, **options)


def test_store_without_an_experiment_says_what_it_lacks(volumes):
    for options, match in (
        ({"roi": "nsdgeneral"}, "no ROI volumes"),
        ({"trials": "train"}, "no shared1000"),
    ):
        with pytest.raises(StoreError, match=match):
            TrialDataset(volumes.path, **options)


def test_store_of_another_layout_gives_the_same_region(experiment, ds, tmp_path):
    other = tmp_path / "other.zarr"
    ds.load().drop_encoding().to_zarr(other, zarr_format=3, consolidated=False)
    options = {"roi": "V2d", "zscore": "session", "trials": "test"}
    ours, theirs = (load(TrialLoader(TrialDataset(path, **options), 4)) for path in (experiment.path, other))
    assert np.array_equal(ours["betas"], theirs["betas"])
    assert np.array_equal(ours["nsd_id"], theirs["nsd_id"])
