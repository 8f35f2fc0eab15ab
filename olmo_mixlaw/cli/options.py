"""The options that `fit`, `compare`, `optimize` and `predict` share, and what they mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from olmo_mixlaw.cli.counts import COUNT
from olmo_mixlaw.errors import ConfigError, complain
from olmo_mixlaw.runs.table import MOST_TOLERANCE

if TYPE_CHECKING:
    from olmo_mixlaw.laws.fitted import Fit
    from olmo_mixlaw.runs import RunTable

# How much of what is drawn an interval holds.
LEVEL = 0.9
LEAST_REFITS = 10
# Seconds after which slow work begins to say what it is at.
SILENT = 3.0

TABLE = (
    click.option(
        "--table",
        metavar="PATH",
        help="A RunTable folder, a CSV, gzipped CSV or Parquet file of losses, or a YAML that "
        "describes a wide CSV.",
    ),
    click.option("--ratios", metavar="CSV", help="Olmix's or RegMix's table of mixtures."),
    click.option("--metrics", metavar="CSV", help="The table of losses beside --ratios."),
    click.option(
        "--target",
        multiple=True,
        metavar="NAME",
        help="A loss that counts: a column of --metrics, or a domain of --table. Default: all that "
        "are recognised as losses, and said so.",
    ),
    click.option(
        "--unit",
        default="",
        metavar="UNIT",
        help="What the losses are in, where the table doesn't say: nats, bits or bits_per_byte.",
    ),
    click.option("--size", type=COUNT, default=np.nan, help="Parameters of a --ratios swarm."),
    click.option("--tokens", type=COUNT, default=np.nan, help="Tokens of a --ratios swarm."),
    click.option(
        "--weight-tolerance",
        default=1e-6,
        show_default=True,
        type=click.FloatRange(0, MOST_TOLERANCE),
        help="How far a run's weights may sum from 1; beyond 1e-6 they are rescaled.",
    ),
)
BOUNDS = (
    click.option("--at-least", multiple=True, metavar="DOMAIN=H", help="Least ratio of a domain."),
    click.option(
        "--at-most", multiple=True, metavar="DOMAIN=H", help="Greatest ratio of a domain."
    ),
)
SEED = click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the starts."
)
NO_LEVEL = click.option(
    "--level/--no-level",
    default=True,
    show_default=True,
    help="Beyond the table's sizes and budgets, bring losses to a level of its own; without, they "
    "are the law's alone.",
)
BOOTSTRAP = click.option(
    "--bootstrap",
    default=0,
    show_default=True,
    help="Refits to resampled runs, for 90 % intervals; a saved fit needs its table beside it.",
)


def grouped(options: Sequence[Callable]) -> Callable[[Callable], Callable]:
    """One decorator for options that go together, in their order."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# The ways to say which table: `--table`, or `--ratios` with `--metrics`.
table_options = grouped(TABLE)
# Between what a mixture's ratios must lie.
bound_options = grouped(BOUNDS)


def given_table(options: Mapping[str, Any]) -> RunTable:
    """The table that the values of `table_options` name, saying on standard error how it was read.

    Raises `ConfigError`, `DataError`.
    """
    from olmo_mixlaw.runs.importers import load_table

    table = load_table(
        options["table"],
        options["ratios"],
        options["metrics"],
        n_params=options["size"],
        n_tokens=options["tokens"],
        weight_tolerance=options["weight_tolerance"],
        unit=options["unit"],
        targets=options["target"],
    )
    for note in table.notes:
        complain(note)
    return table


@contextmanager
def said() -> Iterator[None]:
    """Say on standard error what slow work is at, once it has taken a while."""
    from olmo_mixlaw.laws.engine.progress import reporting

    start = time.monotonic()

    def to(line: str) -> None:
        if time.monotonic() - start > SILENT:
            click.echo(line, err=True)

    with reporting(to):
        yield


def loaded(path: str, level: bool) -> Fit:
    """A saved fit, or its law alone. Raises `DataError`."""
    from olmo_mixlaw.laws.fitted import Fit

    fitted = Fit.load(path)
    return fitted if level else replace(fitted, level=None)


def fitted_table(fitted: Fit, options: Mapping[str, Any], option: str) -> RunTable:
    """The table that a saved fit was fitted to, which `option` asks for. Raises `ConfigError`."""
    from olmo_mixlaw.laws.fitted import data_hash

    if not options["table"] and not options["ratios"]:
        raise ConfigError(f"{option}: needs the table that was fitted (--table, or --ratios)")
    table = given_table(options)
    design = table.design()
    if data_hash(fitted.seen(design)) != fitted.data_hash:
        raise ConfigError(
            f"{option}: the table is not the one that was fitted "
            f"({len(design)} runs here, {fitted.n_rows} then, or other values)"
        )
    return table


def refits(
    fitted: Fit,
    options: Mapping[str, Any],
    replicates: int,
    seed: int,
    table: RunTable | None = None,
) -> Iterator[Fit]:
    """The bootstrap of a saved fit, on the table that it was fitted to, if that is read already.

    Raises `ConfigError`.
    """
    from olmo_mixlaw.laws.choice.uncertainty import bootstrap

    if replicates < LEAST_REFITS:
        raise ConfigError(
            f"--bootstrap {replicates}: an interval needs {LEAST_REFITS} refits or more"
        )
    table = table or fitted_table(fitted, options, "--bootstrap")
    return bootstrap(fitted, table.design(), replicates=replicates, seed=seed)


def refuse_input(option: str, out: str | None, *inputs: str | None) -> None:
    """Refuse to write over what a command reads. Raises `ConfigError`."""
    read: list[Path] = []
    for path in (Path(given) for given in inputs if given):
        read += [*path.glob("losses.*"), *path.glob("scores.*")] if path.is_dir() else [path]
    if out and Path(out).exists() and any(f.exists() and f.samefile(out) for f in read):
        raise ConfigError(f"{option} {out}: is read by this command; write to another file")


def check_figure(path: str | None) -> None:
    """Refuse, before any work, a file that no figure can be saved as. Raises `ConfigError`."""
    if path is not None:
        from olmo_mixlaw.report.style import check_format

        check_format(path, "--figure")


def pairs(
    items: tuple[str, ...], option: str, number: Callable[[str], float] = float
) -> dict[str, float]:
    """`name=value` strings as a mapping; `number` reads a value. Raises `ConfigError`."""
    result = {}
    for item in items:
        name, sign, value = item.rpartition("=")
        try:
            result[name] = number(value)
        except (ValueError, ConfigError):
            sign = ""
        if not sign or not name:
            raise ConfigError(f"{option}: expected NAME=NUMBER, found {item!r}")
        if not np.isfinite(result[name]) or result[name] < 0:
            raise ConfigError(f"{option}: {item!r}: must be finite and not negative")
    return result
