import importlib.util

import pytest

pytest.importorskip("torch")

from nsd_zarr.torch import TrialDataset, TrialLoader
from nsd_zarr.torch.progress import choose_kind


@pytest.mark.parametrize("kind", ["tqdm", "rich", True])
def test_progress_is_drawn_on_standard_error_and_changes_no_batch(volumes, capsys, kind):
    if kind == "tqdm":
        pytest.importorskip("tqdm")
    dataset = TrialDataset(volumes.path)
    loader = TrialLoader(dataset, 4, progress=kind)
    trials = [trial for batch in loader for trial in batch["trial"][batch["valid"]].tolist()]
    out, err = capsys.readouterr()
    assert trials == list(range(volumes.trials))
    assert out == ""
    assert "epoch 0" in err
    assert f"{len(loader)}/{len(loader)}" in err
    assert loader.state_dict()["epoch"] == 1


@pytest.mark.parametrize("kind", ["tqdm", "rich"])
def test_progress_of_a_resumed_epoch_begins_where_it_was(volumes, capsys, kind):
    if kind == "tqdm":
        pytest.importorskip("tqdm")
    dataset = TrialDataset(volumes.path)
    loader = TrialLoader(dataset, 4, progress=kind)
    loader.load_state_dict(loader.state_dict() | {"batches": 10})
    assert len(list(loader)) == len(loader) - 10
    assert f"{len(loader)}/{len(loader)}" in capsys.readouterr().err


def test_progress_is_silent_unless_it_is_asked_for(volumes, capsys):
    list(TrialLoader(TrialDataset(volumes.path), 4))
    assert capsys.readouterr() == ("", "")


def test_progress_of_another_kind_is_refused(volumes):
    with pytest.raises(ValueError, match="progress 'bar': expected tqdm, rich"):
        TrialLoader(TrialDataset(volumes.path), 4, progress="bar")


def test_tqdm_that_is_not_installed_is_told_with_its_cure(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_kind(True) == "rich"
    with pytest.raises(ImportError, match="pip install tqdm"):
        choose_kind("tqdm")
