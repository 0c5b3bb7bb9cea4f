"""The public face as users write against it: right scripts run and check, a misspelled option fails in both."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import nsd_zarr
from nsd_zarr.simulate import Simulation, simulate_root

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WRONG = {
    'nsd_zarr.convert("nsd", "s.zarr", codek="zstd")': "Did you mean codec?",
    'nsd_zarr.plan("nsd", "s.zarr", trial_per_shard=5)': "Did you mean trials_per_shard?",
    'nsd_zarr.verify("s.zarr", codec="zstd")': "region, storage_options, scratch, workers, memory.",
    'nsd_zarr.verify("s.zarr", trial_table="responses.tsv")': "Known are source, quick",
    'nsd_zarr.verify("s.zarr", worker=1)': "Did you mean workers?",
    'nsd_zarr.repair("s.zarr", "nsd", session=1)': "Did you mean sessions?",
    'nsd_zarr.repair("s.zarr", "nsd", fresh=True)': "Known are sessions",
    'nsd_zarr.attach("s.zarr", "nsd", brain_mask="mask.nii.gz")': "Did you mean brainmask?",
    'nsd_zarr.attach("s.zarr", "nsd", codec="zstd")': "Known are config",
    'nsd_zarr.convert_images("nsd", "s.zarr", image_per_shard=1)': "Did you mean images_per_shard?",
    'nsd_zarr.convert_images("nsd", "s.zarr", scheduler="threads")': "Known are subject",
    'nsd_zarr.open_dataset("s.zarr", chunk={})': "Did you mean chunks?",
}
"""Calls with an option that the function does not take, and what the error of running them says."""


def test_user_script_runs(tmp_path, capsys):
    simulate_root(tmp_path / "nsd", Simulation(sessions=2, shape=(12, 5, 7, 3)))
    assert runpy.run_path(str(HERE / "user_script.py"))["main"](tmp_path) == 0
    assert "session 02" in capsys.readouterr().out


@pytest.mark.parametrize("call", WRONG)
def test_option_that_is_not_taken_is_refused_with_the_nearest(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(nsd_zarr.ConfigError, match=re.escape(WRONG[call])) as caught:
        eval(call)
    assert re.search(rf"\b{caught.value.found}=", call)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow  # half a minute without mypy's cache
def test_option_that_is_not_taken_fails_type_checking_at_its_line(tmp_path, monkeypatch):
    api = pytest.importorskip("mypy.api")
    monkeypatch.chdir(ROOT)
    script = tmp_path / "misspelled.py"
    script.write_text(
        "import nsd_zarr\n" + "\n".join([*WRONG, "nsd_zarr.convert('nsd', 's.zarr', codec='zstd')"]) + "\n"
    )
    out, err, _ = api.run([str(script), "--no-error-summary"])
    assert err == ""
    found = {int(line.split(":")[1]) for line in out.splitlines() if line.startswith(str(script)) and "error:" in line}
    assert found == set(range(2, 2 + len(WRONG))), out


def test_every_option_of_convert_is_one_of_the_configuration():
    from nsd_zarr.config import Config

    # `subjects` decides what plan returns, so that it is a keyword of its own.
    assert {*nsd_zarr.ConvertOptions.__annotations__, "subjects"} == set(Config.model_fields)


def test_quick_with_a_source_is_refused(tmp_path):
    with pytest.raises(nsd_zarr.ConfigError, match="quick, and a source to compare with"):
        nsd_zarr.verify(tmp_path / "s.zarr", tmp_path, quick=True)


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines").glob("*.py")), ids=lambda path: path.stem)
def test_pipelines_import_only_the_public_face(path):
    allowed = {"nsd_zarr", "nsd_zarr.torch"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        assert [name for name in names if name.split(".")[0] == "nsd_zarr" and name not in allowed] == []
