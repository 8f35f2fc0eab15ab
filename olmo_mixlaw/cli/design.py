"""`olmo-mixlaw design`: which runs to buy for a target, under a budget."""

from __future__ import annotations

from typing import Any

import click

from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import COUNT
from olmo_mixlaw.cli.options import SEED, bound_options, check_figure, table_options
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.runs.units import NATS

# What the runs are for, and how much the forecast's error then counts.
AIMS = {"mixture": 0.0, "both": 0.5, "forecast": 1.0}


@click.command()
@recipe_option
@click.option("--n-params", type=COUNT, required=True, help="Parameters of the target model.")
@click.option(
    "--n-active", type=COUNT, default=None, help="Its active parameters, for what it costs."
)
@click.option("--n-tokens", type=COUNT, required=True, help="Tokens that it will be trained on.")
@click.option(
    "--budget",
    required=True,
    metavar="AMOUNT",
    help="What may be spent: 1e20 (FLOPs), '40 gpu-hours' or '$500'.",
)
@click.option(
    "--ladder",
    default=None,
    metavar="NAME",
    help="A ladder of sizes to choose from (a name, or its YAML). Default: the sizes of the table.",
)
@click.option("--rung", multiple=True, metavar="NAME", help="Only these rungs of the ladder.")
@click.option(
    "--multiple",
    multiple=True,
    type=float,
    default=(1.0,),
    show_default=True,
    help="Lengths of the ladder's runs, as multiples of Chinchilla's tokens.",
)
@click.option(
    "--domains", default=None, metavar="A,B,...", help="The sources, where there is no table."
)
@click.option(
    "--study",
    "study_path",
    default=None,
    metavar="CONFIG",
    help="A study whose ladder, sources, bounds and weights are taken, and which --write fills.",
)
@table_options
@click.option(
    "--laws", default=None, metavar="A,B,...", help="Names of the laws that are to be told apart."
)
@click.option(
    "--mixtures",
    "n_mixtures",
    type=click.IntRange(2),
    default=200,
    show_default=True,
    help="Mixtures that each size is offered at.",
)
@click.option(
    "--prior",
    multiple=True,
    metavar="DOMAIN=H",
    help="The mixture about which they are drawn. Default: the mean of the table's, or equal.",
)
@bound_options
@click.option(
    "--available",
    multiple=True,
    metavar="DOMAIN=TOKENS",
    help="Tokens that a domain has for the target. Where it would repeat, runs have it cut so that "
    "they repeat it as often.",
)
@click.option("--max-epochs", type=float, default=None, help="See no domain of it more often.")
@click.option("--target-weight", multiple=True, metavar="TARGET=W", help="Weight of a target.")
@click.option(
    "--goal",
    "goal_file",
    default=None,
    metavar="FILE",
    help="Families of targets with their weights (configs/goals, or a path).",
)
@click.option(
    "--aim",
    type=click.Choice(list(AIMS)),
    default="both",
    show_default=True,
    help="What the runs are for: to choose the mixture, to forecast its loss, or both.",
)
@click.option(
    "--across",
    type=click.Choice(["mean", "worst"]),
    default="mean",
    show_default=True,
    help="Plan for all laws together, or for the one that knows least.",
)
@click.option("--repeat", is_flag=True, help="Runs may be bought again, with other seeds.")
@click.option(
    "--batch",
    default=None,
    metavar="AMOUNT",
    help="Spend the budget in batches of this. Default: a fifth of it.",
)
@click.option(
    "--stop-early", is_flag=True, help="End where the next batch wouldn't pay for itself."
)
@click.option(
    "--gpu-flops", type=COUNT, default=None, help="Peak FLOPs a second of a GPU: 989T for an H100."
)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.4,
    show_default=True,
    help="The part of the peak that training reaches.",
)
@click.option(
    "--tokens-per-second",
    multiple=True,
    metavar="SIZE=NUMBER",
    help="A size's measured speed on one GPU (its rung, or its parameters), in place of both.",
)
@click.option("--dollars-per-gpu-hour", type=float, default=None, help="What an hour costs.")
@click.option(
    "--fixed-cost",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="What each run costs besides, in the budget's unit.",
)
@click.option(
    "--write",
    default=None,
    metavar="FILE",
    help="Write the runs: a CSV, or with --study the YAML of a study that trains them.",
)
@click.option("--figure", default=None, metavar="FILE", help="Draw the plan (PNG, SVG, PDF).")
@SEED
@answers
def design(
    answer: Answer,
    n_params: float,
    n_active: float | None,
    n_tokens: float,
    budget: str,
    laws: str | None,
    target_weight: tuple[str, ...],
    goal_file: str | None,
    aim: str,
    across: str,
    batch: str | None,
    stop_early: bool,
    write: str | None,
    figure: str | None,
    seed: int,
    **options: Any,
) -> None:
    """Choose the runs that tell most about a target's best mixture for a budget.

    The sizes are those of a --ladder or of the table of runs made already; each is offered at many
    mixtures. What is known before is the laws' priors, or what the table says.
    """
    from olmo_mixlaw.advice.design import Target, plan_runs
    from olmo_mixlaw.advice.design.plan import LAWS
    from olmo_mixlaw.advice.design.told import runs_of
    from olmo_mixlaw.cli import planned
    from olmo_mixlaw.cli.offered import Given

    check_figure(figure)
    planned.check_write(write, options["study_path"])
    given = Given.of(options, n_params, n_tokens, budget)
    per_batch = given.batch_of(batch)
    candidates, sizes = given.offered(options, seed)
    names = given.targets_of(options["target"])
    weights = given.weights_of(target_weight, goal_file, names)
    plan = plan_runs(
        candidates,
        laws=laws.split(",") if laws else LAWS,
        target=Target(
            n_params,
            n_tokens,
            available=given.available_array(),
            price=given.price_of(n_params, n_active or n_params, n_tokens),
        ),
        budget=given.budget,
        seen=given.seen,
        targets=names,
        batch=per_batch,
        goal_weights=weights,
        error_part=AIMS[aim],
        across=across,
        stop_early=stop_early,
        seed=seed,
    )
    runs = runs_of(candidates, sizes, plan)
    unit = NATS if given.seen is None else given.seen.unit
    answer.document = planned.document(given, plan, runs, unit)
    answer.show(planned.text(given, plan, runs, unit, n_params))
    if write:
        print(f"wrote {planned.written(write, runs, given)}")
    if figure:
        from olmo_mixlaw.report import design_figures, law_figures

        drawn = design_figures.of_plan(candidates, plan, unit, given.prices.unit)
        print(f"drew {law_figures.save(drawn, figure)}")
