"""The page about a store: its numbers by plain NumPy, everything escaped, nothing loaded, damage shown."""

import json
import re

import numpy as np
import pytest

import nsd_zarr
from nsd_zarr.errors import ConfigError, StoreError

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def made(experiment, tmp_path_factory):
    """A report with figures of bench, and its page."""
    folder = tmp_path_factory.mktemp("report")
    rows = [{"name": "TrialLoader", "delivers": "int16", "threads": 2, "trials_per_second": 1600.0}]
    (folder / "bench.json").write_text(json.dumps({"rows": rows}))
    report = nsd_zarr.make_report(experiment.path, folder / "page.html", bench=folder / "bench.json")
    return report, (folder / "page.html").read_text()


def test_sessions_have_the_quantiles_of_voxels_with_data(made, experiment):
    report, _ = made
    brain, stored = experiment.arrays["brainmask"], experiment.store.stored.reshape(3, 14, 5, 11, 3)
    for place, each in enumerate(report.sessions):
        values = np.float64(stored[place]) / 300
        known = brain & (stored[place].max(0) > stored[place].min(0))
        quantiles = np.quantile(values.mean(0)[known], [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose(each.mean, quantiles, rtol=1e-5)
        np.testing.assert_allclose(each.deviation[2], np.median(values.std(0)[known]), rtol=1e-5)
        assert (each.session, each.missing) == (experiment.store.sessions[place], (brain & ~known).sum())
        assert each.at_rails == experiment.arrays["rail_count"][place]


def test_sessions_have_the_bytes_of_their_shards(made, experiment):
    report, _ = made
    for place, each in enumerate(report.sessions):
        shards = [experiment.path / f"betas/c/{shard}/0/0/0" for shard in (2 * place, 2 * place + 1)]
        assert each.stored_bytes == sum(shard.stat().st_size for shard in shards)


def test_reliability_is_that_of_numpy(made, experiment):
    report, _ = made
    found, images = report.reliability, experiment.arrays["nsd_id"]
    ids = [each for each in np.unique(images) if (images == each).sum() == 3]
    scored = experiment.scored.reshape(42, -1) * np.sqrt(13 / 14)  # ddof 1
    shown = np.array([scored[images == each] for each in ids])
    region = experiment.arrays["roi_nsdgeneral"].reshape(-1) > 0
    known = ~np.isnan(shown).any(1)
    counted = known.sum(0)[region]
    with np.errstate(invalid="ignore"):
        noise = np.where(known, shown.var(1, ddof=1), 0).sum(0)[region] / counted
        ncsnr = np.sqrt(np.maximum(0, 1 - noise)) / np.sqrt(noise)
    assert (found.images, found.region) == (len(ids), "nsdgeneral")
    np.testing.assert_allclose(found.ncsnr_median, np.nanmedian(ncsnr), rtol=1e-4)
    np.testing.assert_allclose(
        found.ncsnr_median_of_authors, np.nanmedian(experiment.arrays["ncsnr"].reshape(-1)[region])
    )
    pairs = [
        np.corrcoef(one[known], two[known])[0, 1]
        for one, two in zip(shown[:, 0, region].T, shown[:, 1, region].T, strict=True)
        if (known := ~np.isnan(one + two)).sum() > 1
    ]
    np.testing.assert_allclose(found.showing_correlation[2], np.median(pairs), rtol=1e-4)


def test_regions_have_the_noise_ceiling_of_their_voxels(made, experiment):
    report, _ = made
    v1v = next(each for each in report.regions if each.label == "V1v")
    squared = np.square(experiment.arrays["ncsnr"][experiment.arrays["roi_prf-visualrois"] == 1])
    ceiling = 100 * squared / (squared + 1 / 3)
    assert v1v.voxels == np.isfinite(ceiling).sum()
    np.testing.assert_allclose(v1v.ceiling[2], np.nanmedian(ceiling), rtol=1e-5)
    assert report.regions[0].roi == "nsdgeneral"
    assert not {each.roi for each in report.regions} & {"Kastner2015", "HCP_MMP1"}


def test_page_is_whole_and_loads_nothing(made):
    _, page = made
    assert re.findall(r"""(?:src|href)=["'](?!data:)""", page) == []
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") == 8
    assert "default-src 'none'" in page
    assert "✓ whole" in page


def test_numbers_are_plain_json(made):
    report, _ = made
    values = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert values["contents"]["trials"] == 42
    assert values["sessions"][1]["session"] == 3
    assert values["bench"]["rows"][0]["name"] == "TrialLoader"


def test_text_from_files_is_escaped(experiment, tmp_path, monkeypatch):
    from builders import change_root

    store = experiment.store.copy_to(tmp_path / "a<b>.zarr")
    note = "odd <script>alert(1)</script> \x1b[31m name"
    change_root(store.path, lambda attributes, _: attributes.update(notes=[note], subject="<img>"))
    nsd_zarr.make_report(store.path, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page.replace("<b>42", "").split("</h1>")[0]
    assert "\x1b" not in page
    assert "odd &lt;script&gt;" in page


def test_surfaces_and_stores_without_an_experiment_have_what_they_have(surfaces, volumes, tmp_path):
    for store in (surfaces, volumes):
        report = nsd_zarr.make_report(store.path, tmp_path / "page.html")
        assert (report.reliability, report.regions, report.contents.trials) == (None, (), 42)
        assert len(report.sessions) == 3
        assert "Sessions" in (tmp_path / "page.html").read_text()


def test_damage_is_in_the_verdict_and_in_the_exit_code(experiment, tmp_path, run_cli):
    store = experiment.store.copy_to(tmp_path / "subj01.zarr")
    shard = store.path / "betas/c/1/0/0/0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    outcome = run_cli("report", store.path, "--out", tmp_path / "page.html", "--verify", "--json")
    assert outcome.code == 1, outcome.err
    verdict = json.loads(outcome.out)["verdict"]
    assert (verdict["is_whole"], verdict["strength"]) == (False, "full")
    assert "trial 7" in " ".join(verdict["damages"])
    assert "✗ damaged" in (tmp_path / "page.html").read_text()


def test_trial_that_cannot_be_read_is_told_and_the_rest_is_shown(experiment, tmp_path):
    store = experiment.store.copy_to(tmp_path / "subj01.zarr")
    with (store.path / "betas/c/0/0/0/0").open("r+b") as file:
        file.write(bytes(40))  # of the first trial, which is drawn; indexes stay right
    report = nsd_zarr.make_report(store.path, tmp_path / "page.html")
    assert (report.verdict.strength, report.verdict.is_whole) == ("quick", False)
    assert "trial 0" in " ".join(report.verdict.damages)
    assert len(report.regions) > 0


def test_command_writes_the_page_and_prints_the_same_numbers(experiment, made, tmp_path, run_cli):
    outcome = run_cli("report", experiment.path, "--out", tmp_path / "new/page.html", "--json")
    assert outcome.code == 0, outcome.err
    values = json.loads(outcome.out)
    assert values["sessions"] == made[0].as_dict()["sessions"]
    assert (tmp_path / "new/page.html").stat().st_size > 100_000


def test_what_is_no_output_of_bench_is_refused(experiment, tmp_path):
    for text in ("{}", "[1]", '{"rows": [{"name": "a", "trials_per_second": 0}]}', "{"):
        (tmp_path / "bench.json").write_text(text)
        with pytest.raises(ConfigError, match="not the output of bench"):
            nsd_zarr.make_report(experiment.path, tmp_path / "page.html", bench=tmp_path / "bench.json")
    with pytest.raises(ConfigError, match="cannot read"):
        nsd_zarr.make_report(experiment.path, tmp_path / "page.html", bench=tmp_path / "none.json")


def test_no_store_no_page(tmp_path):
    with pytest.raises(StoreError):
        nsd_zarr.make_report(tmp_path / "none.zarr", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_store_of_several_subjects_has_a_page_each(run_cli, whole_tree, tmp_path):
    outcome = run_cli("report", whole_tree, "--out", tmp_path / "page.html", "--subjects", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["subjects"]["2"]["contents"]["origin"]["subject"] == "2"
    assert [path.name for path in tmp_path.glob("*.html")] == ["page-subj02.html"]
