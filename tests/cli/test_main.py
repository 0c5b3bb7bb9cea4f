"""The commands: help, words, JSON and exit codes."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

import nsd_zarr
from nsd_zarr.cli.main import commands

COMMANDS = sorted(commands.commands)
WITH_JSON = ["plan", "convert", "attach", "verify", "repair", "info", "bench", "images", "export", "report"]


# -- help --------------------------------------------------------------------------------------------------------


def test_commands_are_those_of_the_interface():
    assert set(COMMANDS) >= {"demo", "simulate", "plan", "convert", "verify", "info"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_of_a_command_explains_every_option(word, command, run_cli):
    outcome = run_cli(command, word)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"Usage: nsd-zarr {command}" in outcome.out
    for parameter in commands.commands[command].params:
        if parameter.param_type_name == "option" and not parameter.hidden:
            assert parameter.opts[0] in outcome.out
            assert parameter.help, parameter.name


@pytest.mark.parametrize("command", COMMANDS)
def test_command_takes_quiet_and_debug(command):
    names = {parameter.name for parameter in commands.commands[command].params}
    assert {"quiet", "debug"} <= names
    assert ("as_json" in names) == (command in WITH_JSON)


def test_help_without_a_command_names_each(run_cli):
    for words in ((), ("--help",)):
        outcome = run_cli(*words)
        for command in COMMANDS:
            assert re.search(rf"^  {command} ", outcome.out + outcome.err, re.MULTILINE)


def test_version_is_the_packages(run_cli, run_child):
    expected = f"nsd-zarr, version {version('nsd-zarr')}\n"
    assert (run_cli("--version").code, run_cli("--version").out) == (0, expected)
    assert run_child("--version").out == expected


# -- what each does ----------------------------------------------------------------------------------------------


def test_simulate_writes_sessions_that_plan_finds(tmp_path, run_cli):
    outcome = run_cli("simulate", tmp_path / "nsd", "--sessions", 2, "--shape", "13,3,7,5", "--seed", 4)
    assert outcome.code == 0
    assert "2 sessions in " in outcome.out
    printed = run_cli("plan", tmp_path / "nsd", tmp_path / "subj01.zarr", "--json").json
    assert (printed["trials"], printed["shape"]) == (26, [26, 3, 7, 5])


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
def test_simulate_of_each_layout_converts(layout, tmp_path, run_cli):
    assert run_cli("simulate", tmp_path / "nsd", "--sessions", 1, "--shape", "13,3,7,5", "--layout", layout).code == 0
    assert run_cli("convert", tmp_path / "nsd", tmp_path / "subj01.zarr", "--quiet").code == 0
    assert nsd_zarr.verify(tmp_path / "subj01.zarr", tmp_path / "nsd").is_whole


@pytest.mark.parametrize(
    "words", [("--shape", "1,2"), ("--shape", "a,b,c,d"), ("--sessions", 0), ("--layout", "tape"), ("--seed", -1)]
)
def test_simulate_refuses_what_cannot_be_made(words, tmp_path, run_cli):
    outcome = run_cli("simulate", tmp_path / "nsd", *words)
    assert outcome.code == 2
    assert outcome.err.startswith("nsd-zarr: ")
    assert not (tmp_path / "nsd").exists()


def test_plan_convert_verify_info_tell_one_story(simulated, tmp_path, run_cli):
    store = tmp_path / "subj01.zarr"
    options = ("--trials-per-shard", 7)
    planned = run_cli("plan", simulated, store, *options)
    assert planned.code == 0
    for word in ("1-2: 2 found", "28 of (5, 11, 7) int16", "2 units", "4 shards of 7 trials", "bytes free", "1 pass"):
        assert word in planned.out.replace("GB free", "bytes free").replace("TB free", "bytes free")
    converted = run_cli("convert", simulated, store, *options)
    assert converted.code == 0
    assert "28 trials" in converted.out
    assert f"Next: nsd-zarr verify {store}" in converted.out
    assert run_cli("convert", simulated, store, *options).out == f"{store} is finished: nothing to do.\n"
    verified = run_cli("verify", store, "--source", simulated)
    assert verified.code == 0
    assert "every value equal to its source" in verified.out
    info = run_cli("info", store)
    assert info.code == 0
    for word in ("complete", "sessions   1-2, 28 trials", "betas", "trial_digest", "betas_session02.hdf5", "codec lz4"):
        assert word in info.out


def test_info_of_an_unfinished_store_says_so(simulated, tmp_path, run_cli):
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nsd_zarr.convert(simulated, tmp_path / "subj01.zarr", on_event=stop)
    outcome = run_cli("info", tmp_path / "subj01.zarr", "--json")
    assert (outcome.code, outcome.json["status"]) == (0, "incomplete")


def test_several_files_and_globs_are_sources(simulated, tmp_path, run_cli):
    files = sorted(simulated.glob("*.hdf5"))
    assert run_cli("plan", *files, tmp_path / "a.zarr", "--json").json["trials"] == 28
    assert run_cli("plan", files[1], tmp_path / "b.zarr", "--json").json["trials"] == 14
    assert run_cli("plan", f"{simulated}/betas_session0[12].hdf5", tmp_path / "c.zarr", "--json").json["trials"] == 28


def test_configuration_file_gives_options_and_flags_win(simulated, tmp_path, run_cli):
    config = tmp_path / "convert.yaml"
    config.write_text("codec: zstd\ntrials_per_shard: 2\nsessions: 1-2\n")
    words = ("plan", simulated, tmp_path / "a.zarr", "--config", config, "--trials-per-shard", 7, "--json")
    settings = run_cli(*words).json["settings"]
    assert (settings["codec"], settings["trials_per_shard"]) == ("zstd", 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("codek: zstd", "unknown key 'codek'. Did you mean codec?"),
        ("codec: [", "not valid YAML"),
        ("codec: !!python/name:os.system", "not valid YAML"),
        ("clevel: 99", "clevel = 99: "),
    ],
)
def test_configuration_file_with_a_mistake_is_2_and_explained(text, message, simulated, tmp_path, run_cli):
    config = tmp_path / "convert.yaml"
    config.write_text(text)
    outcome = run_cli("convert", simulated, tmp_path / "subj01.zarr", "--config", config)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.strip().endswith(f"[{config}]")
    assert list(tmp_path.iterdir()) == [config]


# -- stdout and stderr -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", [(), ("--quiet",)], ids=["", "quiet"])
def test_json_is_one_object_on_stdout(quiet, simulated, tmp_path, run_cli):
    store = tmp_path / "subj01.zarr"
    keys = {}
    for command, *words in (
        ("plan", simulated),
        ("convert", simulated),
        ("convert", simulated),
        ("verify",),
        ("info",),
    ):
        outcome = run_cli(command, *words, store, "--json", *quiet)
        assert outcome.code == 0
        assert outcome.err == "" or (command in ("convert", "verify") and not quiet)
        keys[command] = set(outcome.json)
    assert keys["plan"] >= {"sessions", "trials", "bytes_in", "files", "peak_memory_bytes", "free_bytes", "free_inodes"}
    assert keys["convert"] >= {"store", "sessions", "bytes_out", "seconds"}
    assert keys["verify"] >= {"whole", "damages", "strength"}
    assert keys["info"] >= {"settings", "libraries", "sources", "status"}


def test_quiet_says_nothing_when_all_is_well(simulated, tmp_path, run_cli):
    store = tmp_path / "subj01.zarr"
    for words in (("plan", simulated, store), ("convert", simulated, store), ("verify", store), ("info", store)):
        outcome = run_cli(*words, "--quiet")
        assert (outcome.code, outcome.out, outcome.err) == (0, "", "")


def test_quiet_still_tells_errors_and_damage(simulated, tmp_path, run_cli):
    assert run_cli("plan", tmp_path / "nowhere", tmp_path / "a.zarr", "--quiet").err.startswith("nsd-zarr: ")
    nsd_zarr.convert(simulated, tmp_path / "subj01.zarr")
    (tmp_path / "subj01.zarr/session/c/0").unlink()
    outcome = run_cli("verify", tmp_path / "subj01.zarr", "--quiet")
    assert outcome.code == 1
    assert "session/c/0: missing" in outcome.out


def test_json_of_an_error_leaves_stdout_empty(tmp_path, run_cli):
    outcome = run_cli("plan", tmp_path / "nowhere", tmp_path / "a.zarr", "--json")
    assert (outcome.code, outcome.out) == (3, "")


# -- exit codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "--nonsense", "a", "b"),
        ("convert", "a"),
        ("convert",),
        ("nonsense",),
        ("convert", "a", "b", "--workers", "many"),
        ("convert", "a", "b", "--workers", "0"),
        ("convert", "a", "b", "--codec", "mp3"),
        ("convert", "a", "b", "--clevel", "10"),
        ("convert", "a", "b", "--memory", "much"),
        ("convert", "a", "b", "--memory", "0"),
        ("convert", "a", "b", "--sessions", "0-3"),
        ("convert", "a", "b", "--sessions", "3-1"),
        ("convert", "a", "b", "--scheduler", "somewhere"),
        ("convert", "a", "b", "--trials-per-shard", "0"),
        ("convert", "a", "b", "--config", "nowhere.yaml"),
        ("verify",),
        ("info", "a", "b"),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_bad_option_is_2_and_explained(words, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_cli(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert re.search(r"^(Error|nsd-zarr): ", outcome.err, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_bad_option_of_a_process_is_2(run_child):
    assert run_child("convert", "--nonsense").code == 2


def test_unexpected_exception_is_70_and_reported_as_our_bug(simulated, tmp_path, run_cli, monkeypatch):
    from nsd_zarr.conversion import run

    def break_down(*words, **options):
        raise ZeroDivisionError("by surprise")

    monkeypatch.setattr(run, "make_plan", break_down)
    outcome = run_cli("convert", simulated, tmp_path / "subj01.zarr")
    assert outcome.code == 70
    assert outcome.err.startswith("nsd-zarr: unexpected ZeroDivisionError: by surprise. This is a bug in nsd-zarr")
    assert "Traceback" not in outcome.err
    assert "Traceback" in run_cli("convert", simulated, tmp_path / "subj01.zarr", "--debug").err


def test_debug_prints_a_traceback_with_an_error(tmp_path, run_cli):
    words = ("plan", tmp_path / "nowhere", tmp_path / "a.zarr")
    assert "Traceback" not in run_cli(*words).err
    outcome = run_cli(*words, "--debug")
    assert outcome.code == 3
    assert "Traceback" in outcome.err
    assert "no such file or folder" in outcome.err.splitlines()[-1]


def test_interruption_is_130(simulated, tmp_path, run_cli, monkeypatch):
    from nsd_zarr.conversion import run

    def interrupt(*words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "make_plan", interrupt)
    outcome = run_cli("convert", simulated, tmp_path / "subj01.zarr")
    assert outcome.code == 130
    assert outcome.err.strip().endswith("run the same command again to go on.")
