"""`olmo-mixlaw compare`: laws by their error on what is held out, and which one to choose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.options import (
    NO_LEVEL,
    SEED,
    check_figure,
    given_table,
    pairs,
    refuse_input,
    table_options,
)
from olmo_mixlaw.cli.recipe import recipe_option
from olmo_mixlaw.errors import ConfigError

if TYPE_CHECKING:
    from olmo_mixlaw.laws.choice.selection import Comparison
    from olmo_mixlaw.runs import RunTable


@click.command()
@recipe_option
@table_options
@click.option(
    "--laws",
    default="auto",
    show_default=True,
    help="Names of laws, with commas. auto: one of each kind, and their stack where the table is "
    "short enough for it.",
)
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=5,
    show_default=True,
    help="Folds of the held mixtures.",
)
@click.option(
    "--capacity",
    default="total",
    show_default=True,
    help="What N is: total, active, or the rho between them (a number from 0 to 1, as `fit` "
    "found it).",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["forecast", "mixture"]),
    default="forecast",
    show_default=True,
    help="What the law is chosen for: by the error of all losses, or by that of the mean loss's "
    "differences between mixtures, which few runs tell less surely.",
)
@click.option(
    "--target-weight",
    multiple=True,
    metavar="TARGET=W",
    help="Weight of a target in the mean loss. Default: equal.",
)
@NO_LEVEL
@click.option("--figure", default=None, metavar="FILE", help="Draw the held-out errors.")
@click.option("--out", default=None, help="Also write the table as CSV.")
@SEED
@answers
def compare(
    answer: Answer,
    laws: str,
    folds: int,
    capacity: str,
    purpose: str,
    target_weight: tuple[str, ...],
    level: bool,
    figure: str | None,
    out: str | None,
    seed: int,
    **options: Any,
) -> None:
    """Compare laws by their error on mixtures and sizes held out, and choose one."""
    from olmo_mixlaw.laws.choice import selection
    from olmo_mixlaw.laws.law import resolve
    from olmo_mixlaw.laws.sizes import Size, check_capacity

    check_figure(figure)
    size = Size.fixed("effective", _rho(capacity))
    chosen = None
    if laws != "auto":
        chosen = [resolve(name.strip(), "--laws") for name in laws.split(",")]
    refuse_input("--out", out, options["table"], options["ratios"], options["metrics"])
    table = given_table(options)
    design = table.design()
    print(f"{table.text()}\n")
    if size.rho < 1:
        check_capacity(design, "active")
        design = size.applied(design)
    if chosen is None:
        chosen = [resolve(name) for name in selection.default_laws(design)]
    result = selection.compare(
        design,
        chosen,
        folds=folds,
        seed=seed,
        purpose=purpose,
        target_weights=pairs(target_weight, "--target-weight") or None,
        level=level,
        progress=lambda line: click.echo(line, err=True),
    )
    answer.show(result.text())
    answer.document = document(table, result) | {"saved": out}
    if figure:
        from olmo_mixlaw.report import law_figures

        drawn = law_figures.held_out_errors(result.frame, result.choice)
        print(f"drew {law_figures.save(drawn, figure)}")
    if out:
        with open_atomic(out, newline="") as file:
            shown = result.frame.assign(unit=result.unit)
            shown.to_csv(file, index=False, lineterminator="\n")


def document(table: RunTable, result: Comparison) -> dict[str, Any]:
    """A comparison as `--json` has it; `regret` is in `unit`."""
    names = {"mre": "mre_percent", "noise_floor": "noise_floor_percent"}
    return {
        "unit": result.unit,
        "runs": int(table.losses["run_id"].nunique()),
        "rows": result.frame.rename(columns=names),
        "choice": result.choice,
        "reason": result.reason,
        "purpose": result.purpose,
        "choice_for_the_other_purpose": result.other,
        "noise_targets": list(result.noise_targets),
        "no_answer": result.no_answer or None,
        "warnings": [*table.notes, *table.cautions()],
    }


def _rho(capacity: str) -> float:
    ends = {"total": 1.0, "active": 0.0}
    try:
        rho = ends[capacity] if capacity in ends else float(capacity)
    except ValueError:
        rho = -1.0
    if not 0 <= rho <= 1:
        raise ConfigError(
            f"--capacity {capacity}: expected total, active or a rho from 0 to 1 (`olmo-mixlaw fit "
            "--capacity effective` finds it)"
        )
    return rho
