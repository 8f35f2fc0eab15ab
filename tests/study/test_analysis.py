import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.analysis import answer_of, learning_bracket, learning_ratio
from olmo_mixlaw.study.config import load_study


@pytest.mark.parametrize(
    ("recall", "bracket", "words"),
    [
        ([0.0, 0.1, 0.6, 0.9], (0.2, 0.3), "between 0.2 and 0.3"),
        ([0.0, 0.1, 0.2, 0.4], (0.5, None), "above 0.5: not reached"),
        ([0.7, 0.8, 0.9, 1.0], (None, 0.1), "at or below 0.1"),
        ([0.1, 0.5, 0.2, 0.9], (0.1, 0.2), "between 0.1 and 0.2"),
    ],
)
def test_the_jump_is_placed_between_two_sampled_ratios(recall, bracket, words):
    series = pd.Series(recall, index=[0.1, 0.2, 0.3, 0.5])
    assert learning_bracket(series) == bracket
    assert learning_ratio(series) == words


def made_table(study):
    """A table of a study's planned runs, its losses invented."""
    from olmo_mixlaw.study.checks import planned_design
    from olmo_mixlaw.study.plan import plan

    runs = plan(study)
    design = planned_design(study, runs)
    size = (design.n_params * design.n_tokens)[:, None]
    noise = np.random.default_rng(0).normal(0, 0.003, design.ratios.shape)
    losses = (1.5 + 2 * (size * (design.ratios + 0.1)) ** -0.15) * np.exp(noise)
    rows = [
        {
            "run_id": run.run_id,
            "n_params": run.rung.n_params,
            "n_tokens": run.n_tokens,
            "mixture": run.mixture,
            **{f"w_{d}": run.ratios.get(d, 0.0) for d in study.domains},
            "domain": domain,
            "loss": losses[i, j],
        }
        for i, run in enumerate(runs)
        for j, domain in enumerate(study.domains)
    ]
    return RunTable(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("current", "against"),
    [(None, None), ("high", "high, the current"), ("{wiki: 0.9, bio: 0.1}", "the current")],
)
def test_the_proposal_is_judged_against_the_best_tried_and_the_current(
    study_file, current, against
):
    text = f"target: {{size: w64, current: {current}" if current else "target: {size: w64"
    study = load_study(study_file([("target: {size: w64", text)]))
    study.laws = ["transfer"]
    found = answer_of(study, made_table(study))
    first, *rest = found.verdicts
    assert first.against in {f"{name}, the best tried" for name in study.mixtures}
    assert first.domains == tuple(study.domains)
    assert first.low <= first.gain <= first.high
    assert " at w64 " in first.sentence or first.sentence.startswith("NO ANSWER")
    assert [one.against for one in rest] == ([against] if against else [])
    if current == "high":
        np.testing.assert_allclose(rest[0].ratios, [0.3, 0.7])


@pytest.mark.parametrize(
    ("current", "message"),
    [
        ("hihg", "target.current: unknown mixture 'hihg'.*did you mean 'high'"),
        ("{wiki: 0.5}", "target.current: the ratios sum to 0.5, not 1"),
        ("{wiki: 0.5, boi: 0.5}", "unknown domain 'boi'"),
        ("{wiki: much, bio: 0.1}", "target.current.wiki: 'much': expected a ratio"),
        ("3", "target.current: 3: expected the name of a mixture, or ratios"),
    ],
)
def test_a_current_mixture_that_is_none_is_refused_before_anything_runs(
    study_file, current, message
):
    text = f"target: {{size: w64, current: {current}"
    with pytest.raises(ConfigError, match=message):
        load_study(study_file([("target: {size: w64", text)]))
