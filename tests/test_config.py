"""The configuration: flags over file over defaults, and every mistake reported with the way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsd_zarr.config import CODECS, DEFAULT_CLEVELS, Config, make_config, parse_sessions
from nsd_zarr.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    """Write a configuration file; returns its path."""

    def make(text):
        path = tmp_path / "convert.yaml"
        path.write_text(text)
        return path

    return make


# -- precedence --------------------------------------------------------------------------------------------------


def test_defaults_hold_where_nothing_is_said():
    config = make_config()
    assert (config.codec, config.effective_clevel, config.dataset, config.scheduler) == ("lz4", 5, "betas", "threads")
    assert (config.sessions, config.trials_per_shard, config.memory, config.fresh) == (None, None, None, False)
    assert config.effective_workers >= 1


def test_flags_win_over_the_file_and_the_file_over_defaults(write):
    path = write("codec: zstd\nclevel: 7\nworkers: 3\n")
    config = make_config(path, clevel=2, workers=None)
    assert (config.codec, config.clevel, config.workers, config.dataset) == ("zstd", 2, 3, "betas")


def test_flag_that_is_falsy_wins_too(write):
    assert make_config(write("clevel: 7"), clevel=0).effective_clevel == 0
    assert make_config(write("fresh: true"), fresh=False).fresh is False


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "codec:\n  lz4\n"])
def test_file_that_says_little_is_allowed(text, write):
    assert make_config(write(text)) == make_config()


@pytest.mark.parametrize("codec", CODECS)
def test_level_is_the_codecs_own_unless_given(codec):
    assert make_config(codec=codec).effective_clevel == DEFAULT_CLEVELS[codec]
    assert make_config(codec=codec, clevel=1).effective_clevel == 1


def test_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        make_config().codec = "zstd"


# -- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("codek", "codec"),
        ("trials-per-shard", "trials_per_shard"),
        ("trial_per_shard", "trials_per_shard"),
        ("session", "sessions"),
        ("mem", "memory"),
        ("c_level", "clevel"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known_one(key, near, write):
    for make in (lambda: make_config(write(f"{key}: 1")), lambda: make_config(**{key: 1})):
        with pytest.raises(ConfigError, match=f"unknown key '{key}'. Did you mean {near}\\?") as caught:
            make()
        assert caught.value.found == key


def test_unknown_key_like_no_other_is_refused_with_all_known(write):
    with pytest.raises(ConfigError, match=r"unknown key 'zzz'. Known are sessions, subject, .*fresh"):
        make_config(write("zzz: 1"))


def test_key_with_none_is_refused_too():
    with pytest.raises(ConfigError, match="Did you mean codec"):
        make_config(codek=None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("codec: [", "not valid YAML"),
        ("codec: !!python/object/apply:os.system [echo]", "not valid YAML"),
        ("workers: !secret 3", "not valid YAML"),
        ("- codec\n- zstd\n", "found a list, expected keys and values"),
        ("just words", "found a str, expected keys and values"),
        ("a: b: c", "not valid YAML"),
        ("\t", "not valid YAML"),
    ],
)
def test_file_that_is_no_flat_yaml_is_refused(text, message, write):
    path = write(text)
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(path)
    assert caught.value.path == path


def test_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "convert.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        make_config(tmp_path / "convert.yaml")


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration: No such file.*nowhere.yaml"):
        make_config(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot read the configuration: Is a directory"):
        make_config(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("codec", "mp3", "expected one of lz4, zstd"),
        ("clevel", 10, "less than or equal to 9"),
        ("clevel", "high", "valid integer"),
        ("workers", 0, "greater than or equal to 1"),
        ("workers", 2.5, "valid integer"),
        ("memory", "much", "could not"),
        ("memory", 0, "greater than 0"),
        ("memory", "-1GiB", ""),
        ("subject", 0, "greater than or equal to 1"),
        ("dataset", "", "at least 1 character"),
        ("scheduler", "somewhere", "the address of a Dask scheduler"),
        ("scheduler", 3, "the address of a Dask scheduler"),
        ("trials_per_shard", 0, "greater than or equal to 1"),
        ("sessions", "0-3", "counted from 1"),
        ("sessions", "3-1", "counted from 1"),
        ("sessions", "1,,2", "counted from 1"),
        ("sessions", "all", "counted from 1"),
        ("sessions", [], "at least one session"),
        ("sessions", True, "such as 1-40"),
        ("sessions", 1.5, "such as 1-40"),
        ("fresh", "perhaps", "valid boolean"),
    ],
)
def test_bad_value_is_refused_with_key_value_and_what_is_expected(key, value, message):
    with pytest.raises(ConfigError) as caught:
        make_config(**{key: value})
    assert f"{key} = {value!r}: " in str(caught.value)
    assert message in str(caught.value)
    assert "See nsd-zarr convert --help." in str(caught.value)


def test_several_bad_values_are_reported_together():
    with pytest.raises(ConfigError, match=r"codec = 'mp3'.*; clevel = 99"):
        make_config(codec="mp3", clevel=99)


def test_bad_value_in_a_file_names_the_file(write):
    path = write("codec: mp3")
    with pytest.raises(ConfigError) as caught:
        make_config(path)
    assert caught.value.path == path
    assert str(caught.value).endswith(f"[{path}]")


# -- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1-40", tuple(range(1, 41))),
        ("1-3,5", (1, 2, 3, 5)),
        ("5, 1 - 3", (1, 2, 3, 5)),
        ("7", (7,)),
        (7, (7,)),
        ([3, 1, 3], (1, 3)),
        (("2", "4-5"), (2, 4, 5)),
        (range(2, 4), (2, 3)),
        ("1-3,2-4", (1, 2, 3, 4)),
        (None, None),
    ],
    ids=str,
)
def test_sessions_are_read_in_each_form(value, expected):
    assert make_config(sessions=value).sessions == expected


@given(st.sets(st.integers(1, 9999), min_size=1, max_size=20))
def test_sessions_come_back_from_their_own_text(numbers):
    assert parse_sessions(",".join(map(str, numbers))) == tuple(sorted(numbers))


@pytest.mark.parametrize(
    "text", ["sessions: 1-3,5", "sessions: '1-3,5'", "sessions: [1, 2, 3, 5]", "sessions: [1-3, 5]"]
)
def test_sessions_in_a_file_are_read_in_each_form(text, write):
    assert make_config(write(text)).sessions == (1, 2, 3, 5)


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * 2**30), ("512MiB", 2**29), ("1GB", 10**9), ("1000", 1000), (1000, 1000), ("1.5 GiB", 3 * 2**29)],
)
def test_memory_is_read_with_its_unit(text, size):
    assert make_config(memory=text).memory == size


@pytest.mark.parametrize("address", ["tcp://localhost:8786", "tls://10.0.0.1:1", "threads", "synchronous"])
def test_scheduler_is_a_word_or_an_address(address):
    assert make_config(scheduler=address).scheduler == address


def test_each_key_has_its_option_on_the_command_line():
    from nsd_zarr.cli.main import commands

    for command in ("plan", "convert"):
        names = {parameter.name for parameter in commands.commands[command].params}
        # storage_options is of Python alone, as in pandas and xarray.
        assert set(Config.model_fields) - names == {"storage_options"}
