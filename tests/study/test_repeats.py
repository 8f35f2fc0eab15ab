"""Studies whose sources are cut, and what their tables say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import ConfigError, UnknownNameError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.collect import available, target_tokens
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import olmo_config, plan


def mixtures_of(study, tmp_path):
    configs = (olmo_config(study, run, tmp_path / "t", tmp_path, tmp_path) for run in plan(study))
    return {
        run.mixture: config["mixture"] for run, config in zip(plan(study), configs, strict=True)
    }


def test_runs_are_cut_as_the_study_says(study_file, tmp_path):
    edit = [("laws:", "source_tokens: {wiki: 9000}\ncuts: {mid: {wiki: 5k, bio: 4k}}\nlaws:")]
    found = mixtures_of(load_study(study_file(edit)), tmp_path)
    assert found["low"]["source_tokens"] == {"wiki": 9000}
    assert found["mid"]["source_tokens"] == {"wiki": 5000, "bio": 4000}
    plain = mixtures_of(load_study(study_file()), tmp_path)
    assert set(plain["mid"]) == {"ratios", "cache_dir"}


def test_short_runs_repeat_as_the_target_will(study_file, tmp_path):
    edit = [
        ("tokens: [40_000]", "tokens: [40_960, 81_920]\nmatch_repeats: true"),
        ("size: w64, tokens: 40_000", "size: w64, tokens: 163_840"),
    ]
    study = load_study(study_file(edit))
    runs = plan(study)
    shares = [
        olmo_config(study, run, tmp_path / "t", tmp_path, tmp_path)["mixture"]["source_share"]
        for run in runs
    ]
    np.testing.assert_allclose(shares, [run.n_tokens / 163_840 for run in runs])
    target = replace(runs[0], n_tokens=163_840)
    config = olmo_config(study, target, tmp_path / "t", tmp_path, tmp_path)
    assert "source_share" not in config["mixture"]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("source_tokens: {wik: 9000}", UnknownNameError, "did you mean 'wiki'"),
        ("source_tokens: {wiki: 100}", ConfigError, "source_tokens.wiki: 100: expected at least"),
        ("cuts: {mit: {wiki: 9000}}", UnknownNameError, "did you mean 'mid'"),
        ("cuts: {mid: {wiki: -1}}", ConfigError, "cuts.mid.wiki: -1: expected at least"),
    ],
)
def test_wrong_cuts_are_refused(study_file, line, error, message):
    with pytest.raises(error, match=message):
        load_study(study_file([("laws:", f"{line}\nlaws:")]))


def test_one_mixture_may_be_cut_in_several_ways(study_file):
    same = ("  mid: {wiki: 0.5, bio: 0.5}", "  mid: {wiki: 0.8, bio: 0.2}")
    with pytest.raises(ConfigError, match=r"the same ratios as mixtures\.low"):
        load_study(study_file([same, ("laws:", "source_tokens: {wiki: 9000}\nlaws:")]))
    three = [same, ("  high:", "  more: {wiki: 0.5, bio: 0.5}\n  high:")]
    assert load_study(study_file([*three, ("laws:", "cuts: {mid: {wiki: 9000}}\nlaws:")]))


def test_what_a_run_had_is_read_from_what_it_saw(tmp_path: Path):
    record = tmp_path / "mixture.json"
    assert available(record, ["wiki"]) == {}
    sources = {"wiki": {"sequences_an_epoch": 20}, "bio": {"sequences_an_epoch": None}}
    record.write_text(json.dumps({"sequence_length": 128, "sources": sources}))
    found = available(record, ["wiki", "bio", "code"])
    assert found["available_wiki"] == 2560
    assert np.isnan([found["available_bio"], found["available_code"]]).all()


def test_the_target_has_what_its_runs_had_or_what_they_were_cut_from(study_file):
    frame = pd.DataFrame(
        {"run_id": ["a", "b"], "n_tokens": 4e4, "w_wiki": 0.5, "w_bio": 0.5, "domain": "wiki"}
    ).assign(loss=3.0)
    study = load_study(study_file())
    assert target_tokens(study, RunTable(frame)) is None
    table = RunTable(frame.assign(available_wiki=[5e3, 2e4], available_bio=np.nan))
    assert target_tokens(study, table) == {"wiki": 2e4}
    longer = replace(study, match_repeats=True, target=replace(study.target, tokens=400_000))
    assert target_tokens(longer, table) == {"wiki": 2e5}
