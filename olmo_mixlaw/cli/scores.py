"""`olmo-mixlaw scores`: from a folder of evaluators' outputs to the mixture of the best scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import COUNT, counted
from olmo_mixlaw.cli.objective import weighed
from olmo_mixlaw.cli.options import (
    LEVEL,
    SEED,
    bound_options,
    check_figure,
    given_table,
    pairs,
    refuse_input,
    said,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.cli.score_answer import Shown, outside
from olmo_mixlaw.cli.verdicts import given_mixture
from olmo_mixlaw.errors import ConfigError, complain
from olmo_mixlaw.registry import ONE_SCALE_LAW, SCALES_LAW

if TYPE_CHECKING:
    from olmo_mixlaw.evaluation.of_runs import Joined
    from olmo_mixlaw.runs import RunTable


@click.command()
@click.argument("outputs", required=False)
@recipe_option
@table_options
@click.option("--n-params", type=COUNT, default=np.nan, help="Parameters of the target model.")
@click.option("--n-active", type=COUNT, default=None, help="Its active parameters.")
@click.option("--n-tokens", type=COUNT, default=np.nan, help="Tokens that it will be trained on.")
@click.option(
    "--goal",
    default=None,
    metavar="FILE",
    help="A YAML of families of tasks with weights: a shipped name (configs/goals) or a path. "
    "Default: every task counts alike.",
)
@click.option("--task-weight", multiple=True, metavar="TASK=W", help="Weight of a single task.")
@click.option(
    "--current",
    multiple=True,
    metavar="DOMAIN=H",
    help="The mixture that gains are counted from: a ratio a domain, with commas or repeated, or a "
    "YAML of a mixture. Default: the one that most runs have, or the mean of those tried.",
)
@click.option(
    "--primary",
    multiple=True,
    metavar="METRIC",
    help="What a task's score is where its evaluator doesn't say: the first of these that it has.",
)
@click.option(
    "--chance",
    multiple=True,
    metavar="TASK=SCORE",
    help="What guessing scores on tasks whose names start so, where it isn't known.",
)
@click.option(
    "--law",
    default="auto",
    show_default=True,
    help=f"The law of losses. auto: {SCALES_LAW} where sizes or budgets vary, else "
    f"{ONE_SCALE_LAW}.",
)
@click.option(
    "--capacity", default="total", show_default=True, help="What N is: total, active or effective."
)
@bound_options
@click.option(
    "--available",
    multiple=True,
    metavar="DOMAIN=TOKENS",
    help="Tokens that a domain has for the target, which repeats it when it sees more.",
)
@click.option("--max-epochs", type=float, default=None, help="See no domain of those more often.")
@click.option(
    "--bootstrap",
    type=click.IntRange(10),
    default=40,
    show_default=True,
    help="Refits to resampled runs, behind the intervals.",
)
@click.option("--figure", default=None, metavar="FILE", help="Draw the gains (PNG, SVG, PDF).")
@click.option(
    "--out", default=None, metavar="FILE", help="Save the scores, for `optimize --benchmark`."
)
@click.option("--mixture", default=None, metavar="FILE", help="Write the mixture as YAML.")
@SEED
@answers
def scores(
    answer: Answer,
    outputs: str | None,
    n_params: float,
    n_active: float | None,
    n_tokens: float,
    goal: str | None,
    task_weight: tuple[str, ...],
    current: tuple[str, ...],
    primary: tuple[str, ...],
    chance: tuple[str, ...],
    law: str,
    capacity: str,
    at_least: tuple[str, ...],
    at_most: tuple[str, ...],
    available: tuple[str, ...],
    max_epochs: float | None,
    bootstrap: int,
    figure: str | None,
    out: str | None,
    mixture: str | None,
    seed: int,
    **options: Any,
) -> None:
    """Find the mixture of the best scores, from a folder OUTPUTS of an evaluator's files.

    OUTPUTS has a folder (or a file of results) for each run of the table, named like it; without
    it the table's own scores are read.
    """
    from olmo_mixlaw import advice
    from olmo_mixlaw.advice.families import Families
    from olmo_mixlaw.advice.gains import gains, luck_of, paired_draws, refits_of, usual_mixture
    from olmo_mixlaw.advice.repetition import for_run
    from olmo_mixlaw.advice.scores import fit_scores
    from olmo_mixlaw.advice.simplex import bounds_of
    from olmo_mixlaw.advice.verdict import CURRENT, verdict
    from olmo_mixlaw.laws.choice import selection
    from olmo_mixlaw.laws.choice.differences import Differences
    from olmo_mixlaw.laws.law import resolve

    check_figure(figure)
    if law != "auto":
        resolve(law, "--law")
    if goal and task_weight:
        raise ConfigError("--goal and --task-weight: give one of them")
    if max_epochs is not None and not available:
        raise ConfigError("--max-epochs: needs --available, the tokens that domains have")
    families = Families.load(goal) if goal else None
    weights = pairs(task_weight, "--task-weight") or None
    tokens = pairs(available, "--available", counted) or None
    read = [options[key] for key in ("table", "ratios", "metrics")]
    for option, written in (("--out", out), ("--mixture", mixture)):
        refuse_input(option, written, *read, goal, *current)
    table = given_table(options)
    design = table.design()
    bounds: dict[str, Any] = {
        "lower": pairs(at_least, "--at-least"),
        "upper": pairs(at_most, "--at-most"),
        "max_epochs": max_epochs,
    }
    budget = n_tokens if np.isfinite(n_tokens) else float(design.n_tokens.max())
    low, high = bounds_of(design.domains, available=tokens, n_tokens=budget, **bounds)
    before, why = usual_mixture(design)
    if current:
        before, why = given_mixture(current, design.domains), "as given"
    joined = _joined(table, outputs, primary)
    if families:
        families.among(sorted(set(joined.table.scores["task"])))  # before the work
    print(f"{joined.table.text()}\n")
    name = selection.default_law(design) if law == "auto" else law
    with said():
        found = fit_scores(
            joined.table, name, chance=pairs(chance, "--chance"), seed=seed, capacity=capacity
        )
        members = None
        if families:
            members, weights = weighed(families, found, [])
        sought = found.goal(task_weights=weights)
        refits = list(refits_of(found, joined.table, bootstrap, seed))
        best = advice.optimum(
            found.fit,
            n_params,
            n_tokens,
            n_active=n_active,
            objective=sought,
            available_tokens=tokens,
            seed=seed,
            refits=refits,
            **bounds,
        )
        ratios, where = np.stack([before, best.ratios]), (n_params, n_tokens, n_active)
        asked = replace(found, fit=for_run(found.fit, n_tokens, tokens))
        others = (for_run(other, n_tokens, tokens) for other in refits)
        luck = luck_of(found, joined.table)
        draws = paired_draws(asked, others, ratios, *where, luck=luck, seed=seed)
        tasks = found.law.tasks
        share = dict(zip(tasks, sought.weights, strict=True))
        predicted = asked.predict(ratios, *where)
        (least,), (most,) = asked.interval(ratios[1:], *where, level=LEVEL)
        gained = gains(predicted, draws, tasks, share, members, LEVEL, (least, most))
        judged = verdict(
            found.fit,
            best,
            before,
            f"{CURRENT} ({why})",
            between=Differences.measured(found.fit, found.design_below(joined.table), seed=seed),
            refits=refits,
            besides=(100 * gained.mean["low"], 100 * gained.mean["high"]),
            objective=sought,
            available_tokens=tokens,
            **bounds,
        )
    shown = Shown(
        found, best, before, why, gained, judged, outside(design.domains, before, low, high)
    )
    answer.show(shown.text())
    answer.document = shown.document() | {
        "runs_without_outputs": joined.without,
        "outputs_without_run": joined.strangers,
        "saved": out,
    }
    if figure:
        from olmo_mixlaw.report import law_figures, score_figures

        drawn = score_figures.gains_figure(gained, f"gains over the current mixture ({why})")
        print(f"drew {law_figures.save(drawn, figure)}")
    if mixture:
        print(f"the mixture is saved to {write_text(mixture, best.to_yaml())}")
    if out:
        print(f"saved to {found.save(out)}")
        print(f"goes on with: olmo-mixlaw optimize --benchmark {out}")


def _joined(table: RunTable, outputs: str | None, primary: Sequence[str]) -> Joined:
    """The table with the scores of its outputs, or its own; says what lacks what."""
    from olmo_mixlaw.evaluation.of_runs import Joined, with_outputs

    if outputs is None:
        if primary:
            raise ConfigError("--primary: needs OUTPUTS; a table names it in a column 'primary'")
        if table.scores.empty:
            raise ConfigError(
                f"OUTPUTS: is needed, the folder of the evaluator's files: {table.source} has no "
                "scores of its own"
            )
        return Joined(table, [], [])
    joined = with_outputs(table, outputs, primary)
    for note in joined.notes():
        complain(note)
    return joined
