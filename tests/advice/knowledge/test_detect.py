"""Jumps are told from steep smooth curves, in recall and in bits, and what is missing is said."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.advice.knowledge import detect
from olmo_mixlaw.advice.knowledge.change import find_change
from olmo_mixlaw.advice.knowledge.detect import document, judge
from olmo_mixlaw.advice.knowledge.sweep import Series, scaled, unscaled
from olmo_mixlaw.errors import ConfigError, DataError
from olmo_mixlaw.runs import RunTable

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import knowledge as benchmark

X = np.repeat(np.linspace(0, 1, 10), 2)
RATIOS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
RNG = np.random.default_rng(3)


def test_few_smooth_curves_are_called_a_transition():
    assert benchmark.alarm_rate(120, seed=5) <= 0.05


@pytest.mark.parametrize(("height", "noise", "least"), [(0.8, 0.03, 0.95), (0.4, 0.03, 0.8)])
def test_true_jumps_are_found_where_they_are(height, noise, least):
    called, held = benchmark.power(height, noise, 40, seed=6)
    assert called >= least
    assert held >= 0.85


def test_the_kind_of_a_change_is_told():
    noise = 0.01 * RNG.normal(size=len(X))
    assert find_change(X, 0.05 + noise).kind == "flat"
    assert find_change(X, 0.1 + 0.7 * X + noise).kind == "gradual"
    assert find_change(X, 1 / (1 + np.exp(-12 * (X - 0.5))) + noise).kind == "smooth"
    jump = find_change(X, 0.02 + 0.9 * (X > 0.47) + noise)
    assert jump.kind == "jump"
    assert jump.low <= 0.47 <= jump.high
    assert jump.width == pytest.approx(1 / 9)
    bend = find_change(X, np.maximum(X - 0.5, 0) + 0.1 * noise)
    assert bend.low <= 0.5 <= bend.high


def test_evidence_is_the_same_in_any_order_of_runs_and_unit():
    y = 0.02 + 0.6 * (X > 0.4) + 0.02 * RNG.normal(size=len(X))
    order = RNG.permutation(len(X))
    one, other = find_change(X, y), find_change(X[order], 100 * y[order])
    assert other.log_evidence == pytest.approx(one.log_evidence, rel=1e-9)
    assert other.at == one.at


def series(recall, bits=None, axis="ratio", x=RATIOS) -> Series:
    recall = np.asarray(recall, float)
    known = np.full(len(recall), np.nan) if bits is None else np.asarray(bits, float)
    return Series(axis, {}, np.asarray(x, float), recall, known)


JUMP = [0.01, 0.0, 0.02, 0.01, 0.9, 0.93, 0.92, 0.94]


def test_a_transition_must_be_one_in_bits_too():
    both = judge(series(JUMP, 9 - 8 * np.array(JUMP)))
    assert both.found
    assert both.verdict == "transition: jump in recall, jump in bits"
    smooth = judge(series(JUMP, np.linspace(9, 1, 8)))
    assert not smooth.found
    assert "in recall alone: bits change smoothly" in smooth.verdict
    without = judge(series(JUMP))
    assert "bits are not known" in without.verdict
    assert "add the metric answer_bits" in without.add
    assert 0.2 < both.crossing < 0.25


def test_what_is_missing_is_said():
    never = judge(series([0.01, 0.02, 0.01, 0.02, 0.03, 0.02, 0.01, 0.02]))
    assert any("never crosses 40% (at most 3.0%): add larger ratios" in a for a in never.add)
    ties = judge(series([0.0] * 8))
    assert ties.verdict.startswith("ties only")
    assert any("ties only: add larger ratios" in a for a in ties.add)
    few = judge(series(JUMP[2:6], x=RATIOS[2:6]))
    assert "too few: 4 values" in few.verdict
    assert not few.found
    sizes = judge(series([0.0, 0.01, 0.0], axis="size", x=[1e6, 1e7, 1e8]))
    assert any("add larger sizes" in a for a in sizes.add)


def sweep_table(recalls, ratios=RATIOS, **columns) -> RunTable:
    losses, scores = [], []
    for i, (ratio, recall) in enumerate(zip(ratios, recalls, strict=True)):
        about = {
            "run_id": f"r{i}",
            "n_params": 7e7,
            "n_tokens": 32e9,
            "w_web": 1 - ratio,
            "w_bio": ratio,
            "domain": "web",
            "loss": 3.0,
        }
        losses.append(about | {k: v[i] for k, v in columns.items()})
        for metric, value in (("exact_match", recall), ("answer_bits", 9.1 - 8 * recall)):
            scores.append(
                {"run_id": f"r{i}", "task": "bio_recall", "metric": metric, "value": value}
            )
    return RunTable(pd.DataFrame(losses), pd.DataFrame(scores))


def test_a_table_is_judged_along_the_axis_that_varies():
    found = detect(sweep_table(JUMP), "bio")
    (only,) = found.transitions
    assert (only.series.axis, only.found) == ("ratio", True)
    assert only.series.fixed == {"n_params": 7e7, "n_tokens": 32e9}
    row = document(found)["transitions"][0]
    assert 0.15 < row["recall"]["low"] < 0.225 < row["recall"]["high"] < 0.3
    assert row["recall"]["width_factor"] == pytest.approx((0.25 / 0.75) / (0.2 / 0.8))


def test_time_to_learn_is_fitted_where_several_ratios_reach_the_level():
    ratios, tokens, recalls = [], [], []
    for ratio in (0.3, 0.4, 0.5, 0.6):
        for t in np.geomspace(1e9, 1e12, 13):
            ratios.append(ratio)
            tokens.append(t)
            at = np.exp(-0.255 + 1.514 / ratio) * 1e9
            recalls.append(1 / (1 + (at / t) ** 3))
    table = sweep_table(recalls, ratios, n_tokens=tokens)
    found = detect(table, "bio", axes=["time"])
    assert len(found.transitions) == 4
    assert found.time is not None
    assert found.time.better == "exponential"
    assert found.time.constants["exponential"][1] == pytest.approx(1.514, rel=0.03)


def test_bad_tables_are_refused_with_what_to_add():
    with pytest.raises(DataError, match="a sweep of one ratio and one size and one time"):
        detect(sweep_table([0.1], [0.2]), "bio")
    with pytest.raises(DataError, match="add runs at other values"):
        judge(series([0.1, 0.2], x=[0.2, 0.2]))
    with pytest.raises(DataError, match=r"recall 40 is not within 0 to 1; give parts of 1"):
        series([0.0, 40.0], x=[0.1, 0.2])
    with pytest.raises(DataError, match="within 0 to 1"):
        sweep_table([0.1, 1.4], [0.2, 0.3])
    table = sweep_table(JUMP)
    bare = RunTable(table.losses)
    with pytest.raises(DataError, match="no scores with the metric exact_match; add recall of bio"):
        detect(bare, "bio")
    with pytest.raises(ConfigError, match="unknown domain 'bios'; did you mean 'bio'"):
        detect(table, "bios")
    with pytest.raises(ConfigError, match="unknown axis 'sizes'; did you mean 'size'"):
        detect(table, "bio", axes=["sizes"])


def test_axes_are_scaled_and_back():
    values = np.array([0.01, 0.3, 0.99])
    assert unscaled("ratio", scaled("ratio", values)) == pytest.approx(values)
    assert unscaled("size", scaled("size", values * 1e9)) == pytest.approx(values * 1e9)
