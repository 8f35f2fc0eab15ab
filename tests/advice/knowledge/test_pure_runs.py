"""Curves from pure runs: what they find in made-up runs, and what they ask for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.advice.knowledge import Facts, Rule, fit_storage, fit_web, storage_of, web_of
from olmo_mixlaw.errors import DataError
from olmo_mixlaw.runs import RunTable

E = np.array([20.0, 50, 100, 200, 400, 800])
FACTS = Facts(n=5000, bits=20, tokens=10, answers=2)


def web_loss(n):
    return 1.8 + 0.9 * (n / 1e6) ** -0.4


def pure_table(scores: bool = True) -> RunTable:
    """Runs on the web alone at four sizes, and on facts alone at four budgets."""
    losses, said = [], []
    for n in (1e5, 3e5, 1e6, 3e6):
        losses.append(
            {
                "run_id": f"w{n:g}",
                "n_params": n,
                "n_tokens": 1e8,
                "w_web": 1.0,
                "w_bio": 0.0,
                "domain": "web",
                "loss": web_loss(n),
            }
        )
    for e in (30.0, 100.0, 300.0, 1000.0):
        n, name = 2e4, f"f{e:g}"
        losses.append(
            {
                "run_id": name,
                "n_params": n,
                "n_tokens": e * FACTS.tokens_a_pass,
                "w_web": 0.0,
                "w_bio": 1.0,
                "domain": "web",
                "loss": 6.0,
            }
        )
        stored = 2.0 * e / (e + 150) * n
        left = (FACTS.bits - stored / FACTS.n) / FACTS.answers
        said.append({"run_id": name, "task": "bio_recall", "metric": "answer_bits", "value": left})
    frame = (
        pd.DataFrame(said)
        if scores
        else pd.DataFrame(columns=["run_id", "task", "metric", "value"])
    )
    return RunTable(pd.DataFrame(losses), frame)


def test_storage_is_found_again():
    rng = np.random.default_rng(0)
    found = fit_storage(E, 1.2 * E / (E + 120) * np.exp(0.03 * rng.normal(size=len(E))))
    assert found.ceiling[0] == pytest.approx(1.2, rel=0.1)
    assert found.half[0] == pytest.approx(120, rel=0.25)
    low, high = np.quantile(found.ceiling, [0.05, 0.95])
    assert low < 1.2 < high


def test_the_slope_of_a_ladder_is_found_again_with_an_interval():
    n = np.geomspace(1e5, 3e6, 6)
    noisy = web_loss(n) * np.exp(0.002 * np.random.default_rng(2).normal(size=6))
    found = fit_web(n, noisy, near=5e5)
    truth = 0.4 * 0.9 * 0.5**-0.4 / 5e5
    slopes = found.slope(5e5)
    assert slopes[0] == pytest.approx(truth, rel=0.15)
    assert np.quantile(slopes, 0.02) < truth < np.quantile(slopes, 0.98)
    assert "far outside the web-only ladder" in found.reach(1e9)
    assert found.reach(1e6) == ""


def test_a_table_of_pure_runs_gives_the_rule_with_an_interval():
    table = pure_table()
    rule = Rule(web_of(table, "web", 1e6), storage_of(table, "bio", FACTS))
    assert rule.storage.ceiling[0] == pytest.approx(2.0, rel=0.02)
    assert rule.storage.half[0] == pytest.approx(150, rel=0.05)
    facts, tokens = Facts(n=1e5, bits=20, tokens=10), 1e9
    ratio = rule.drawn(100).ratio_for(facts, 1e6, tokens)
    odds = ratio[0] / (1 - ratio[0])
    kappa = 2.0 * (e := facts.exposures(ratio[0], tokens)) / (e + 150)
    slope = 0.4 * 0.9 / 1e6
    assert odds * kappa == pytest.approx(facts.tokens_a_pass * slope / np.log(2), rel=0.1)
    assert np.nanquantile(ratio, 0.05) < ratio[0] < np.nanquantile(ratio, 0.95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: fit_web([1e5, 1e6], [3.0, 2.0]),
            "2 sizes tell no slope; add runs on the web alone",
        ),
        (lambda: fit_web([1e5, 1e6, 1e7], [2.0, 2.1, 2.2]), "the loss doesn't fall"),
        (lambda: fit_storage(E / 100, E / 1e4), "never saturates.* add runs of"),
        (lambda: fit_storage(E, E / E, np.ones(6)), "none was full; add runs with several times"),
        (lambda: fit_storage(E[:2], E[:2]), "add some, to 4 runs at three numbers or more"),
        (
            lambda: storage_of(pure_table(False), "bio", FACTS),
            "metric answer_bits; add runs of bio=1",
        ),
        (lambda: storage_of(pure_table(), "wiki", FACTS), "no domain 'wiki' .it has: web, bio"),
        (lambda: web_of(pure_table(), "bio"), "0 sizes tell no slope"),
    ],
)
def test_runs_that_cannot_tell_are_refused_with_what_to_add(call, message):
    with pytest.raises(DataError, match=message):
        call()
