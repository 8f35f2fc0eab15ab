"""The benchmark of two fidelities: scores, scales of a table, the designs of a study."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from law_tables import grid, table_of, transfer_losses

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import two_fidelity

from olmo_mixlaw.laws import fit
from olmo_mixlaw.runs import RunTable


def study(folder: Path) -> RunTable:
    """Two sizes and two budgets of ten mixtures, the last three of them held."""
    design = transfer_losses(grid(sizes=2, mixtures=10, budgets=2), noise=0.003)
    table = table_of(design)
    mixture = np.unique(design.ratios.round(9), axis=0, return_inverse=True)[1].ravel()
    names = [f"swarm{i}" if i < 7 else f"held{i}" for i in mixture]
    by_run = dict(zip(design.run_ids, names, strict=True))
    losses = table.losses.assign(
        mixture=[by_run[run] for run in table.losses["run_id"]],
        n_embedding=0.25 * table.losses["n_params"],
    )
    replace(table, losses=losses).save(folder)
    return RunTable.load(folder)


def test_a_score_is_of_every_objective() -> None:
    truth = np.array([[1.0, 2.0], [2.0, 1.0], [4.0, 4.0]])
    guess = 1.01 * truth[[1, 0, 2]]
    both = two_fidelity.scored(truth, guess, np.eye(2))
    assert both.rho == pytest.approx(0.5)
    assert both.regret == pytest.approx(1.0)
    exact = two_fidelity.scored(truth, 1.01 * truth, np.eye(2))
    assert exact.mre == pytest.approx(1.0)
    assert (exact.rho, exact.regret) == (1.0, 0.0)


def test_the_nearest_scale_of_a_table_is_taken() -> None:
    design = transfer_losses(grid(sizes=2, mixtures=4, budgets=2))
    some = two_fidelity.at_scale(design, 3.9e7, 1.1e9)
    assert len(some) == 4
    assert set(some.n_params) == {4e7}
    assert set(some.n_tokens) == {1e9}


def test_cells_of_a_study_know_their_cost_and_keep_mixtures_in_order(tmp_path: Path) -> None:
    cells = two_fidelity.cells_of(study(tmp_path))
    assert {key: round(cell.cost, 6) for key, cell in cells.items()} == {
        (0, 0): 0.125,
        (0, 1): 0.25,
        (1, 0): 0.5,
        (1, 1): 1.0,
    }
    for cell in cells.values():
        assert (len(cell.swarm), len(cell.held)) == (7, 3)
        np.testing.assert_array_equal(cell.swarm.ratios, cells[1, 1].swarm.ratios)


def test_every_design_has_its_cost_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path)
    monkeypatch.setattr(two_fidelity, "STUDY", tmp_path)
    monkeypatch.setattr(two_fidelity, "DEAR_RUNS", (2,))
    monkeypatch.setattr(two_fidelity, "FULL_ALONE", (3,))
    monkeypatch.setattr(two_fidelity, "WEIGHTINGS", 5)
    monkeypatch.setattr(two_fidelity, "LAWS", ("two_fidelity",))
    rows = list(two_fidelity.on_study(draws=1))
    costs = {(r["size"], r["cheap"], r["dear_runs"]): r["cost"] for r in rows}
    assert costs[4e7, "7 x N=4e+07 D=1e+09", 2] == pytest.approx(7 / 2 + 2)
    assert costs[4e7, "7 x N=1e+07 D=1e+09", 2] == pytest.approx(7 / 8 + 2)
    assert costs[1e7, "7 x N=1e+07 D=1e+09", 2] == pytest.approx(7 / 2 + 2)
    assert costs[4e7, "", 7] == 7
    assert (1e7, "7 x N=4e+07 D=1e+09", 2) not in costs
    assert all(np.isfinite([r["mre"], r["rho"], r["regret"]]).all() for r in rows)
    assert all(0 <= r["coverage"] <= 1 for r in rows)


def test_the_study_of_the_project_is_there() -> None:
    """132 runs with the tokens that their sources had; its law sees six scales."""
    table = RunTable.load(two_fidelity.STUDY)
    cells = two_fidelity.cells_of(table)
    assert {key: (len(cell.swarm), len(cell.held)) for key, cell in cells.items()} == {
        (i, j): (14, 8) for i in range(2) for j in range(3)
    }
    assert [round(cells[1, j].cost, 3) for j in range(3)] == [0.125, 0.25, 1.0]
    found = fit("two_fidelity", table)
    assert found.repetition is not None
    assert found.repetition.epochs.max() > 1.5
    assert len(found.state["middles"]) == 6
