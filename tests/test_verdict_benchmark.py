"""How verdicts are tried on public tables: what is fitted, what is known, what is counted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from law_tables import grid, transfer_losses

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import verdict as benchmark
from tables import Table


@pytest.fixture
def table() -> Table:
    design = transfer_losses(grid(sizes=3, mixtures=20, budgets=3), noise=0.004)
    return Table("p3", "stem", lambda: design)


def test_no_pair_is_of_two_mixtures_fitted_and_no_truth_of_a_size_is_fitted(table: Table) -> None:
    found = list(benchmark.trials(table, 1))
    assert {trial.what for trial in found} == {
        benchmark.WITHIN,
        benchmark.OUTSIDE,
        benchmark.SHUFFLED,
        benchmark.BEYOND,
    }
    for trial in found:
        assert len(np.unique(np.c_[trial.known.n_params, trial.known.n_tokens], axis=0)) == 1
        tried = benchmark._among(trial.known, np.unique(np.round(trial.fitted.ratios, 6), axis=0))
        assert tried.any()
        assert (~tried).any()
        for _, i, j in benchmark.pairs_of(
            trial.known.losses.mean(1), tried, np.random.default_rng(0)
        ):
            assert not tried[i]
            assert tried[j]
        if trial.what == benchmark.BEYOND:
            assert trial.fitted.n_params.max() < trial.known.n_params.min()


def test_shuffled_losses_are_the_same_ones_elsewhere(table: Table) -> None:
    design = table.load()
    mixed = benchmark.shuffled(design, 0)
    np.testing.assert_array_equal(mixed.ratios, design.ratios)
    np.testing.assert_allclose(np.sort(mixed.losses, 0), np.sort(design.losses, 0))
    assert (mixed.losses != design.losses).any(1).mean() > 0.9


def test_the_outermost_mixtures_are_held(table: Table) -> None:
    cell = benchmark.one_cell(benchmark.longest(table.load()))
    [trial] = benchmark._outermost("p3", cell, 0)
    far = np.abs(cell.ratios - np.unique(cell.ratios, axis=0).mean(0)).sum(1)
    fitted = benchmark._among(cell, np.round(trial.fitted.ratios, 6))
    assert far[fitted].max() <= far[~fitted].min() + 1e-9


def test_what_was_said_is_counted_against_what_was_true() -> None:
    row = {"table": "t", "what": "within", "law": "l", "pair": "any", "refits_low": 0.0}
    frame = pd.DataFrame(
        [
            {**row, "kind": "distinguishable", "gain": 2.0, "low": 1.0, "high": 3.0, "true": 1.5},
            {**row, "kind": "distinguishable", "gain": 2.0, "low": 1.0, "high": 3.0, "true": -1.0},
            {**row, "kind": "as good as", "gain": 0.1, "low": -0.3, "high": 0.4, "true": 0.2},
            {**row, "kind": "can't tell", "gain": 0.1, "low": -3.0, "high": 4.0, "true": 0.9},
        ]
    ).assign(refits_high=1.0)
    [found] = benchmark.summary(frame, ["what"]).to_dict("records")
    assert (found["pairs"], found["inside"], found["refits_inside"]) == (4, 0.75, 0.5)
    assert (found["distinguishable"], found["can't tell"], found["worse"]) == (0.5, 0.25, 0.0)
    assert (found["better_is_true"], found["as_good_is_true"]) == (0.5, 1.0)


def test_a_trial_gives_a_row_for_each_goal_and_pair(table: Table) -> None:
    small = replace(table, load=lambda: transfer_losses(grid(sizes=1, mixtures=12), noise=0.004))
    trial = next(benchmark.trials(replace(small, name="p1"), 1))
    frame = pd.DataFrame(benchmark.rows_of(trial, "transfer", 0))
    pairs = 1 + benchmark.CURRENTS + benchmark.OTHERS
    assert len(frame) == benchmark.GOALS * pairs
    assert (frame["low"] <= frame["gain"]).all()
    assert (frame["gain"] <= frame["high"]).all()
