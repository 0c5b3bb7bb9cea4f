import re
from pathlib import Path

import pytest

from nsd_zarr.config import Config, make_config

PIPELINES = ("train_encoder",)
"""Configs that belong to the pipeline of that name, and are loaded by its tests."""
EVERY = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
CONFIGS = [path for path in EVERY if path.stem not in PIPELINES]


def test_configs_are_there():
    assert {path.stem for path in CONFIGS} >= {"convert", "small", "laptop", "cluster"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_file_as_shipped_loads(path):
    assert isinstance(make_config(path), Config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_file_with_every_comment_taken_out_loads(path, tmp_path):
    """Options that stand there as comments are options that exist."""
    text = re.sub(r"(?m)^# (\w+: )", r"\1", path.read_text())
    uncommented = tmp_path / "config.yaml"
    uncommented.write_text(text)
    assert isinstance(make_config(uncommented), Config)


def test_config_convert_states_the_defaults():
    assert make_config(Path(CONFIGS[0].parent / "convert.yaml")) == Config()
