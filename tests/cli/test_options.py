"""Options mean one thing in all commands; what they meant before is refused with the new name."""

from __future__ import annotations

import pytest

BENCH = {
    ("--workers",): "DataLoader with worker processes is measured with --dataloaders",
    ("--workers", "many"): "expected a number of threads from 1",
    ("--workers", 0): "expected a number of threads from 1",
    ("--threads", 2): "Say --workers 2",
}


@pytest.mark.parametrize("words", BENCH)
def test_former_option_of_bench_is_refused_with_the_new_one(words, tmp_path, run_cli):
    outcome = run_cli("bench", tmp_path / "subj01.zarr", *words)
    assert outcome.code == 2
    assert BENCH[words] in outcome.paragraph


def test_workers_of_bench_are_threads_as_everywhere(tmp_path, run_cli, monkeypatch):
    seen = {}

    def measure(store, **options):
        seen.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("nsd_zarr.bench.run.bench", measure)
    run_cli("bench", tmp_path / "subj01.zarr", "--workers", 3, "--dataloaders")
    assert (seen["threads"], seen["workers"]) == (3, True)


@pytest.mark.parametrize(("words", "count"), [("2", 2), ("1-2", 2), ("1", 1), ("1,2", 2)])
def test_simulate_takes_a_count_or_sessions_from_the_first_on(words, count, tmp_path, run_cli):
    outcome = run_cli("simulate", tmp_path / "nsd", "--sessions", words, "--shape", "13,3,7,5")
    assert outcome.code == 0
    assert len(list(tmp_path.rglob("betas_session*.hdf5"))) == count


@pytest.mark.parametrize("words", ["2-3", "0", "1,3", "all"])
def test_simulate_refuses_sessions_with_a_gap(words, tmp_path, run_cli):
    outcome = run_cli("simulate", tmp_path / "nsd", "--sessions", words)
    assert (outcome.code, list(tmp_path.iterdir())) == (2, [])
    assert "from 1 on without a gap" in outcome.paragraph


@pytest.mark.parametrize("command", ["plan", "convert", "attach"])
def test_help_says_what_a_configuration_can_do(command, run_cli):
    text = " ".join(run_cli(command, "--help").out.split())
    assert "One that names a Dask scheduler is as powerful as code: use only files that you trust." in text
    if command != "attach":
        assert "Whoever runs a Dask scheduler can run code here: name only one that you trust." in text


def test_absent_subject_is_refused_with_those_that_are_there(tmp_path, run_cli):
    for place in ("subj02/func1mm/betas_a", "subj02/func1pt8mm/betas_b", "subj10/func1mm/betas_a"):
        folder = tmp_path / "nsd/ppdata" / place
        folder.mkdir(parents=True)
        (folder / "betas_session01.hdf5").touch()
    outcome = run_cli("plan", tmp_path / "nsd", tmp_path / "subj01.zarr", "--subject", 1)
    assert outcome.code == 3
    message = "for subj01; there are --subject 2, 10; --space func1mm, func1pt8mm; --betas betas_a, betas_b."
    assert message in outcome.paragraph
