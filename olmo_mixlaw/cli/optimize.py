"""`olmo-mixlaw optimize`: the best mixture of a saved fit, its range, its path and its figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np
import pandas as pd

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import COUNT, counted
from olmo_mixlaw.cli.knowledge import learn_options, learned_ratios
from olmo_mixlaw.cli.objective import objective_of
from olmo_mixlaw.cli.options import (
    BOOTSTRAP,
    LEVEL,
    NO_LEVEL,
    SEED,
    bound_options,
    check_figure,
    fitted_table,
    pairs,
    refits,
    refuse_input,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.cli.verdicts import current_mixture, judged
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.runs.units import label

if TYPE_CHECKING:
    from olmo_mixlaw.advice import Optimum
    from olmo_mixlaw.advice.goal import Goal
    from olmo_mixlaw.laws.fitted import Fit

# A range that ends this far above the greatest ratio tried is the law's word only.
BEYOND_TRIED = 0.02


@click.command()
@click.argument("fit_path", metavar="FIT", required=False)
@recipe_option
@click.option("--n-params", type=COUNT, default=np.nan, help="Parameters of the target model.")
@click.option(
    "--n-active",
    type=COUNT,
    default=None,
    help="Its active parameters, for a fit whose capacity is active or effective.",
)
@click.option("--n-tokens", type=COUNT, default=np.nan, help="Tokens that it will be trained on.")
@click.option(
    "--path",
    "path",
    multiple=True,
    metavar="N,D",
    help="Also the best mixture at this size and budget (N,D or N,D,ACTIVE); repeat it for a path.",
)
@click.option(
    "--benchmark",
    default=None,
    metavar="FILE",
    help="Maximise the mean score of a benchmark that `fit --benchmark` saved, instead of "
    "minimising losses. Without a FIT, over the losses that it was fitted with.",
)
@click.option(
    "--goal",
    default=None,
    metavar="FILE",
    help="A YAML of families of tasks with weights: a shipped name (configs/goals) or a path. The "
    "tasks are those of the --benchmark, else the targets.",
)
@click.option("--target-weight", multiple=True, metavar="TARGET=W", help="Weight of a target.")
@click.option("--task-weight", multiple=True, metavar="TASK=W", help="Weight of a benchmark task.")
@bound_options
@learn_options
@click.option(
    "--available",
    multiple=True,
    metavar="DOMAIN=TOKENS",
    help="Tokens that a domain has: a run that sees more repeats it, which counts for less.",
)
@click.option(
    "--cap-tokens",
    type=COUNT,
    default=None,
    help="Tokens of the run that the mixture is for, where it is another budget than --n-tokens: "
    "a swarm of one budget can't speak of others, but repeats its --available as that run would.",
)
@click.option(
    "--max-epochs",
    type=float,
    default=None,
    help="See no domain of --available more often. Default: as often as it is worth.",
)
@click.option(
    "--kl",
    default=0.0,
    show_default=True,
    help="Pull towards the --prior: this times KL(mixture || prior) is added to the objective, in "
    "its unit.",
)
@click.option(
    "--prior",
    multiple=True,
    metavar="DOMAIN=H",
    help="Ratio of a domain in the mixture that --kl pulls towards, one a domain, rescaled to sum "
    "to 1. Default: the mean of the mixtures tried.",
)
@click.option(
    "--current",
    multiple=True,
    metavar="MIXTURE",
    help="The mixture that you have now, to compare with: DOMAIN=H, with commas or repeated, a "
    "YAML of a mixture, or with --table a mixture's (or a run's) name. The best mixture tried is "
    "compared with anyhow.",
)
@click.option(
    "--near-optimal",
    is_flag=True,
    help="Also the range of each ratio that is as good, within --tolerance.",
)
@click.option(
    "--tolerance",
    type=float,
    default=None,
    help="What counts as as good, in units of the objective. Default: 90 % of what the "
    "bootstrap's optima gain over this mixture, or else the fit's residual noise.",
)
@table_options
@NO_LEVEL
@BOOTSTRAP
@click.option("--figure", default=None, metavar="FILE", help="Draw the mixture (PNG, SVG, PDF).")
@click.option("--out", default=None, help="Write the mixture as YAML.")
@SEED
@answers
def optimize(
    answer: Answer,
    fit_path: str | None,
    n_params: float,
    n_active: float | None,
    n_tokens: float,
    path: tuple[str, ...],
    benchmark: str | None,
    goal: str | None,
    target_weight: tuple[str, ...],
    task_weight: tuple[str, ...],
    at_least: tuple[str, ...],
    at_most: tuple[str, ...],
    available: tuple[str, ...],
    cap_tokens: float | None,
    max_epochs: float | None,
    kl: float,
    prior: tuple[str, ...],
    current: tuple[str, ...],
    near_optimal: bool,
    tolerance: float | None,
    level: bool,
    bootstrap: int,
    figure: str | None,
    out: str | None,
    seed: int,
    **options: Any,
) -> None:
    """Find the mixture of least loss, or of the best scores, under a saved FIT."""
    from olmo_mixlaw import advice
    from olmo_mixlaw.advice.repetition import for_run
    from olmo_mixlaw.advice.verdict import tried_mixtures
    from olmo_mixlaw.laws.choice.uncertainty import predicted_interval

    check_figure(figure)
    sought = objective_of(fit_path, benchmark, goal, target_weight, task_weight, level)
    fitted, scored = sought.fit, sought.goal
    if bootstrap and benchmark:
        raise ConfigError("--bootstrap: refits losses, not a --benchmark; leave one of them out")
    if tolerance is not None and not 0 < tolerance < np.inf:
        raise ConfigError(f"--tolerance: must be positive, found {tolerance:g}")
    if prior and not kl:
        raise ConfigError("--prior: needs --kl, how strongly it pulls")
    if cap_tokens is not None and not available:
        raise ConfigError("--cap-tokens: needs --available, the tokens that domains have")
    if max_epochs is not None and not available:
        raise ConfigError("--max-epochs: needs --available, the tokens that domains have")
    refuse_input("--out", out, fit_path, benchmark, goal, options["table"])
    steps = [_scale(text) for text in path]
    how: dict[str, Any] = {
        "objective": scored,
        "target_weights": sought.target_weights,
        "lower": pairs(at_least, "--at-least"),
        "upper": pairs(at_most, "--at-most"),
        "available_tokens": pairs(available, "--available", counted) or None,
        "max_epochs": max_epochs,
        "cap_tokens": cap_tokens,
        "prior": pairs(prior, "--prior") or None,
        "kl": kl,
        "seed": seed,
    }
    if not steps or np.isfinite(n_params) or np.isfinite(n_tokens):
        steps.append((n_params, n_tokens, n_active))
    n_params, n_tokens, n_active = steps[-1]
    if options["learn"] and len(steps) > 1:
        raise ConfigError("--learn: holds at one size and budget; leave out --path")
    learned = learned_ratios(options, n_params, n_tokens if cap_tokens is None else cap_tokens)
    for domain, least in learned.items():
        how["lower"][domain] = max(least, how["lower"].get(domain, 0.0))
    table = None
    if not benchmark and (options["table"] or options["ratios"]):
        table = fitted_table(fitted, options, "--bootstrap" if bootstrap else "--table")
    tried = None if table is None else tried_mixtures(table)
    now = current_mixture(current, fitted.domains, tried)
    drawn = list(refits(fitted, options, bootstrap, seed, table)) if bootstrap else []
    best = advice.optimum(fitted, n_params, n_tokens, n_active=n_active, refits=drawn, **how)
    ranges = pd.DataFrame(
        {
            "domain": best.domains,
            "best": best.ratios,
            "tried_low": fitted.mixtures.min(0),
            "tried_high": fitted.mixtures.max(0),
        }
    )
    asked = for_run(fitted, n_tokens, how["available_tokens"], cap_tokens)
    low, high = predicted_interval(
        asked, best.ratios, n_params, n_tokens, level=LEVEL, n_active=n_active
    )
    losses = pd.DataFrame(
        {"target": best.targets, "loss": best.losses, "low": low[0], "high": high[0]}
    )
    if bootstrap:
        tolerance = _spread(drawn, best, how, ranges, losses, tolerance)
    if near_optimal:
        found = advice.near_optimal(fitted, best, tolerance, **how)
        ranges["low"], ranges["high"] = found["low"], found["high"]
    verdicts = judged(fitted, best, drawn, table, tried, now, how)
    if best.no_answer:
        answer.show(f"{best.no_answer}\n")
    where = fit_path or benchmark
    answer.show(f"{fitted.law.label}, fitted to {fitted.n_rows} runs ({where}){_held(fitted)}\n")
    answer.show(_text(best, ranges, losses, scored))
    for one in verdicts:
        if one.sentence != best.no_answer:
            answer.show(f"\n{one.text()}")
    by_family = sought.by_family(best)
    if by_family is not None:
        answer.show(f"mean {'loss' if scored is None else 'score'} of each family")
        answer.show(by_family.to_string(index=False, float_format="{:.4f}".format))
    for domain, least in learned.items():
        answer.show(f"to be learned, {domain} was kept at {least:.4f} or more")
    walk = None
    if len(steps) > 1:
        walk = advice.optimum_path(fitted, steps, **how)
        heads = [f"{n:.3g},{d:.3g}" for n, d in walk[["n_params", "n_tokens"]].to_numpy()]
        turned = walk.drop(columns=["n_params", "n_tokens"]).set_axis(heads, axis=0).T
        answer.show("\nalong the path (parameters,tokens)")
        answer.show(turned.to_string(float_format="{:.4f}".format))
    answer.document = document(fitted, best, ranges, losses, scored)
    answer.document |= {"path": walk, "saved": out, "learned": learned or None}
    answer.document |= {"families": by_family, "verdicts": [one.document() for one in verdicts]}
    if figure:
        from olmo_mixlaw.report import law_figures

        what = law_figures.size_label(n_params) if np.isfinite(n_params) else fitted.law.name
        title = f"NO ANSWER: no mixture is known to be best, {what}"
        title = title if best.no_answer else f"best mixture, {what}"
        picture = law_figures.best_mixture(ranges, title, walk)
        print(f"drew {law_figures.save(picture, figure)}")
    if out:
        print(f"saved to {write_text(out, best.to_yaml())}")


def _held(fitted: Fit) -> str:
    if np.isfinite(fitted.mixture_r2):
        return f"; R2 between mixtures held out {fitted.mixture_r2:.3f}"
    return "; how well it tells mixtures apart was not measured (olmo-mixlaw compare)"


def _scale(text: str) -> tuple[float, float, float | None]:
    """`N,D` or `N,D,ACTIVE` as numbers. Raises `ConfigError`."""
    try:
        values = [counted(part) for part in text.split(",")]
    except ConfigError:
        values = []
    if len(values) not in (2, 3) or not all(0 < value < np.inf for value in values):
        raise ConfigError(f"--path: expected N,D or N,D,ACTIVE such as 1e9,2e10, found {text!r}")
    return values[0], values[1], values[2] if len(values) == 3 else None


def _spread(
    drawn: list[Fit],
    best: Optimum,
    how: dict[str, Any],
    ranges: pd.DataFrame,
    losses: pd.DataFrame,
    tolerance: float | None,
) -> float:
    """Add the bootstrap's intervals to both tables; the tolerance, from the gains if not given."""
    from olmo_mixlaw import advice
    from olmo_mixlaw.advice.goal import MeanLoss
    from olmo_mixlaw.advice.repetition import for_run
    from olmo_mixlaw.laws.choice.uncertainty import interval, widened

    mixtures, predicted, gains = [], [], []
    settings = {**how, "starts": 4}
    where = (best.n_params, best.n_tokens)
    goal = MeanLoss.of(how["target_weights"], best.targets)
    for other in drawn:
        found = advice.optimum(other, *where, n_active=best.n_active, **settings)
        other = for_run(other, best.n_tokens, how["available_tokens"], how["cap_tokens"])
        here = other.predict(best.ratios, *where, best.n_active)[0]
        mixtures.append(found.ratios)
        predicted.append(here)
        gains.append(float(goal(here[None])[0][0] - goal(found.losses[None])[0][0]))
    ranges["drawn_low"], ranges["drawn_high"] = interval(np.array(mixtures), LEVEL)
    ends = losses["low"].to_numpy(), losses["high"].to_numpy()
    losses["low"], losses["high"] = widened(ends, np.array(predicted), LEVEL)
    return max(float(np.quantile(gains, LEVEL)), 1e-9) if tolerance is None else tolerance


def document(
    fitted: Fit, best: Optimum, ranges: pd.DataFrame, losses: pd.DataFrame, goal: Goal | None
) -> dict[str, Any]:
    """An optimum as `--json` has it; `low` and `high` of a range are how far it is as good."""
    sign, what = (1, "mean loss, minimised") if goal is None else (-1, "mean score, maximised")
    return {
        "no_answer": best.no_answer or None,
        "law": fitted.law.label,
        "runs": fitted.n_rows,
        "mixture_r2": fitted.mixture_r2,
        "n_params": best.n_params,
        "n_active": best.n_active,
        "n_tokens": best.n_tokens,
        "mixture": best.mixture(),
        "epochs": best.seen() or None,
        "ranges": ranges,
        "level": LEVEL if "drawn_low" in ranges else None,
        "objective": {
            "what": what,
            "value": sign * best.value,
            "with_prior": sign * best.objective,
        },
        "unit": best.unit,
        "losses": losses,
        "scores": best.scores,
        "hull_distance": best.hull_distance,
        "warnings": [*best.warnings, *_beyond(ranges)],
    }


def _text(best: Optimum, ranges: pd.DataFrame, losses: pd.DataFrame, goal: Goal | None) -> str:
    rounded = best.mixture()
    names = {
        "low": "as good from",
        "high": "to",
        "drawn_low": "90 % of optima from",
        "drawn_high": "to ",
    }
    shown = ranges.drop(columns=["tried_low", "tried_high"]).rename(columns=names)
    shown["best"] = [rounded[name] for name in shown["domain"]]
    lines = [shown.to_string(index=False, float_format="{:.4f}".format), ""]
    if seen := best.seen():
        often = ", ".join(f"{name} {epochs:.3g} times" for name, epochs in seen.items())
        lines.append(f"of the tokens available, the run sees {often}")
    unit = label(best.unit)
    if goal is None:
        lines.append(f"predicted mean loss {best.value:.4f} {unit}")
    else:
        lines.append(f"predicted mean score {-best.value:.4f}")
        lines += [f"  {task:22s} {score:.4f}" for task, score in best.scores.items()]
    if not np.isclose(best.objective, best.value, rtol=1e-9, atol=0):
        lines.append(f"with the pull towards the prior {best.objective:.4f} (what was minimised)")
    lines.append(f"predicted losses, {unit}, and where a new run is expected 90 % of the time")
    for row in losses.itertuples():
        lines.append(f"  {row.target:22s} {row.loss:.4f}  ({row.low:.4f} - {row.high:.4f})")
    lines += [f"caution: {note}" for note in [*best.warnings, *_beyond(ranges)]]
    return "\n".join(lines)


def _beyond(ranges: pd.DataFrame) -> list[str]:
    """What to say of ranges that end where no run has been."""
    if "low" not in ranges:
        return []
    beyond = ranges[ranges["high"] > ranges["tried_high"] + BEYOND_TRIED]
    far = [f"{row.domain} above {row.tried_high:.3f}" for row in beyond.itertuples()]
    return [f"as good by the law alone, beyond any run: {', '.join(far)}"] if far else []
