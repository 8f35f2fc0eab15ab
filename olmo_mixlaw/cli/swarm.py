"""`olmo-mixlaw swarm`: which mixtures to train small models on, and the files that train them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.counts import COUNT
from olmo_mixlaw.cli.options import check_figure, pairs
from olmo_mixlaw.errors import ConfigError, complain
from olmo_mixlaw.models.ladder import short
from olmo_mixlaw.shipped import find_config
from olmo_mixlaw.swarm.draws import APART, LEAST_RATIO, MAX_STRENGTH, METHODS, MIN_STRENGTH

if TYPE_CHECKING:
    from olmo_mixlaw.swarm.limits import Limits
    from olmo_mixlaw.swarm.making import Swarm
    from olmo_mixlaw.swarm.mixtures import Mixtures
    from olmo_mixlaw.swarm.sources import SourceTree

PLANNER = "planner"
WRITES = ("study", "olmo", "olmo-core", "olmix")
# Those that take the rest of a run from a template, and where shipped ones are.
TEMPLATES = {"study": "configs/studies", "olmo": "configs/train", "olmix": "configs/olmix"}


@click.command()
@click.argument("sources", nargs=-1, required=True)
@click.option("-n", "--mixtures", "n", type=click.IntRange(1), help="How many mixtures.")
@click.option(
    "--method",
    type=click.Choice([*METHODS, PLANNER]),
    default="dirichlet",
    show_default=True,
    help="dirichlet: about the prior; sobol: spread evenly within the limits; planner: the "
    "mixtures of --from.",
)
@click.option("--from", "planned_in", metavar="CSV", help="Mixtures that were chosen elsewhere.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws.")
@click.option(
    "--min-strength",
    default=MIN_STRENGTH,
    show_default=True,
    help="Least strength of the Dirichlet: the smaller, the fewer sources a mixture has.",
)
@click.option(
    "--max-strength", default=MAX_STRENGTH, show_default=True, help="Its greatest strength."
)
@click.option(
    "--temperature",
    default=1.0,
    show_default=True,
    help="The prior to this power: below 1 it is flatter.",
)
@click.option(
    "--prior",
    multiple=True,
    metavar="SOURCE=W",
    help="Weight of an outermost source in the prior, one each; default: the tokens.",
)
@click.option("--at-least", multiple=True, metavar="SOURCE=H", help="Least ratio of a source.")
@click.option("--at-most", multiple=True, metavar="SOURCE=H", help="Its greatest ratio.")
@click.option("--target-tokens", type=COUNT, help="Tokens of the run that the mixture is for.")
@click.option("--max-epochs", type=float, help="How often that run may see a source.")
@click.option("--keep", multiple=True, metavar="SOURCE", help="A source that every mixture has.")
@click.option(
    "--least-ratio",
    type=float,
    help=f"Leave out what is below. Default: {LEAST_RATIO:g}, with --from 0.",
)
@click.option(
    "--apart",
    default=APART,
    show_default=True,
    help="Least distance of two mixtures (total variation).",
)
@click.option(
    "--grow",
    metavar="PATH",
    help="A swarm (its folder or ratios) whose mixtures come first; --mixtures counts them too.",
)
@click.option("--tokenizer", help="Tokenizer file, to count the tokens of datasets.")
@click.option("--dtype", help="Of token files that don't say theirs. Default: uint16.")
@click.option(
    "--match-repeats", is_flag=True, help="Cut sources so that runs repeat them as the target will."
)
@click.option("--run-tokens", type=COUNT, help="Tokens of a run of the swarm.")
@click.option("--name", default="swarm", show_default=True, help="What runs are called after.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Write it here.")
@click.option(
    "--write",
    "writes",
    type=click.Choice(WRITES),
    multiple=True,
    help="Also what trains it: a study, YAMLs of OLMo, source lists of OLMo-core, launches of "
    "Olmix.",
)
@click.option(
    "--template",
    multiple=True,
    metavar="FILE",
    help="What a run is besides its mixture, one for each --write but olmo-core, in their order.",
)
@click.option("--figure", default=None, metavar="FILE", help="Draw the ratios (PNG, SVG, PDF).")
@answers
def swarm(answer: Answer, sources: tuple[str, ...], figure: str | None, **options: Any) -> None:
    """Draw mixtures of SOURCES for a swarm of small runs.

    SOURCES are a source list (YAML of ours, Olmix's or OLMo-core's), a folder of folders of token
    files, or several NAME=TOKENS, NAME=PATH or NAME=mixlaw:...
    """
    from olmo_mixlaw.swarm.config import read_sources
    from olmo_mixlaw.swarm.making import provenance, summary

    check_figure(figure)
    templates = _templates(options)
    tree = read_sources(
        sources,
        prior=pairs(options["prior"], "--prior") or None,
        tokenizer=options["tokenizer"],
        dtype=options["dtype"],
    )
    made = _made(tree, options)
    files = _written(made, options["out"], options["writes"], templates)
    rows = summary(made)
    names = made.tree.leaf_names
    answer.document = {
        **provenance(made),
        "summary": rows,
        "ratios": [
            {"run": run, **{n: r for n, r in zip(names, row, strict=True) if r > 0}}
            for run, row in zip(made.ids, made.leaf_ratios.tolist(), strict=True)
        ],
        "files": files,
    }
    _show(answer, made, rows)
    if figure is not None:
        import pandas as pd

        from olmo_mixlaw.report.law_figures import save
        from olmo_mixlaw.report.swarm_figure import ratios_of_a_swarm

        files.append(save(ratios_of_a_swarm(made.leaf_ratios, pd.DataFrame(rows)), figure))
    for path in files[:4]:
        answer.show(f"wrote {path}")
    if len(files) > 4:
        answer.show(f"and {len(files) - 4} more")


def _templates(options: Mapping[str, Any]) -> dict[str, Path]:
    """The template of each kind of file that needs one. Raises `ConfigError`."""
    writes, given = options["writes"], options["template"]
    if writes and options["out"] is None:
        raise ConfigError("--write: give the folder for it (--out)")
    needing = [kind for kind in dict.fromkeys(writes) if kind in TEMPLATES]
    if len(given) != len(needing):
        raise ConfigError(
            f"--template: {len(given)} given, {len(needing)} needed"
            + (f" (for {', '.join(needing)})" if needing else "")
        )
    return {
        kind: find_config(TEMPLATES[kind], name, "--template")
        for kind, name in zip(needing, given, strict=True)
    }


def _made(tree: SourceTree, options: Mapping[str, Any]) -> Swarm:
    """The swarm that the options describe. Raises `ConfigError`."""
    from olmo_mixlaw.swarm.draws import Draw
    from olmo_mixlaw.swarm.limits import limits_of
    from olmo_mixlaw.swarm.making import drawn, planned
    from olmo_mixlaw.swarm.mixtures import read_mixtures

    chosen = options["method"] == PLANNER
    if chosen != (options["planned_in"] is not None):
        raise ConfigError(f"--method {PLANNER} and --from go together; give both or neither")
    least = options["least_ratio"]
    limits = limits_of(
        tree,
        at_least=pairs(options["at_least"], "--at-least"),
        at_most=pairs(options["at_most"], "--at-most"),
        max_epochs=options["max_epochs"],
        target_tokens=options["target_tokens"],
        keep=options["keep"],
        least_ratio=(0.0 if chosen else LEAST_RATIO) if least is None else least,
    )
    if chosen:
        for key in ("n", "grow"):
            if options[key] is not None:
                raise ConfigError(f"--from has its own mixtures: leave out --{key}")
        made = planned(tree, limits, read_mixtures(options["planned_in"], tree))
    else:
        if options["n"] is None:
            raise ConfigError("-n: how many mixtures?")
        how = Draw(
            **{f.name: options[f.name] for f in dataclasses.fields(Draw)}  # the options' names
        )
        made = drawn(tree, limits, options["n"], how, _begun(tree, limits, options["grow"]))
    kept = ("name", "target_tokens", "run_tokens", "match_repeats")
    made = dataclasses.replace(made, **{key: options[key] for key in kept})
    if made.match_repeats and made.target_tokens is None:
        raise ConfigError("--match-repeats: give --target-tokens")
    return made


def _begun(tree: SourceTree, limits: Limits, path: str | None) -> Mixtures | None:
    """The mixtures of a swarm that grows, saying what today's sources and limits make of them."""
    from olmo_mixlaw.swarm.mixtures import read_mixtures

    if path is None:
        return None
    found = read_mixtures(path, tree)
    if found.missing:
        complain(f"{path}: has no column for {', '.join(found.missing)}: 0 in its mixtures")
    if broken := int(limits.broken(found.ratios).sum()):
        complain(f"{path}: {broken} of its {len(found.ids)} mixtures break a limit; they stay")
    return found


def _written(
    made: Swarm, out: Path | None, writes: tuple[str, ...], templates: Mapping[str, Path]
) -> list[Path]:
    """Write the swarm and what trains it; nothing is written where a part of it can't be."""
    from olmo_mixlaw.swarm import olmix, olmo_core, writing

    if out is None:
        return []
    names, leaves = made.ids, made.leaf_ratios
    study = _study_text(made, templates["study"], out) if "study" in writes else None
    files = writing.write_tables(made, out)
    if study is not None:
        files.append(write_text(out / writing.STUDY, study))
    if "olmo" in writes:
        files += writing.write_olmo(made, templates["olmo"], out)
    run = made.run_tokens
    if "olmo-core" in writes:
        files += olmo_core.write_source_mixtures(
            made.tree, leaves, out / "olmo-core", names=names, run_tokens=run
        )
    if "olmix" in writes:
        files += olmix.write_launch(
            made.tree,
            leaves,
            out / "olmix",
            names=names,
            template=templates["olmix"],
            group=made.name,
            run_tokens=run,
        )
    return files


def _study_text(made: Swarm, template: Path, out: Path) -> str:
    """The study of a swarm, checked as `study run` would. Raises `ConfigError`."""
    from olmo_mixlaw import schema
    from olmo_mixlaw.study.checks import check
    from olmo_mixlaw.study.config import save_study, with_own_paths
    from olmo_mixlaw.study.settings import StudyConfig
    from olmo_mixlaw.swarm.writing import study_values

    where = f"{template} with the swarm"
    values = study_values(made, template, out)
    study = with_own_paths(schema.from_mapping(values, StudyConfig, where), template)
    check(study, where)
    if made.match_repeats and study.target.tokens != made.target_tokens:
        raise ConfigError(
            f"{template}: target.tokens: {study.target.tokens}, and --target-tokens is "
            f"{made.target_tokens:g}: repeats can be matched to one target only"
        )
    return save_study(study)


def _show(answer: Answer, made: Swarm, rows: list[dict[str, Any]]) -> None:
    method = made.made["method"]
    seed = f", seed {made.made['seed']}" if "seed" in made.made else ""
    answer.show(f"{len(made.ids)} mixtures of {len(rows)} sources ({method}{seed})\n")
    columns = ["source", "tokens", "prior", "least", "mean", "greatest", "in"]
    epochs = made.target_tokens is not None
    lines = [[*columns, *(["epochs", "most"] if epochs else [])]]
    for row in rows:
        tokens = short(int(row["tokens"])) if np.isfinite(row["tokens"]) else "-"
        cells = [row["source"], tokens]
        cells += [f"{row[key]:.4f}" for key in ("prior", "least", "mean", "greatest")]
        cells.append(f"{100 * row['present']:.0f} %")
        if epochs:
            cells += [_epochs(row[key]) for key in ("epochs", "most_epochs")]
        lines.append(cells)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *others = line
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        answer.show("  ".join([first.ljust(widths[0]), *padded]))
    never = [row["source"] for row in rows if row["greatest"] == 0]
    if never:
        answer.show(f"in no mixture: {', '.join(never)}")
    if made.tree.leaf_names != made.tree.names:
        answer.show("drawn together, with pinned parts: " + ", ".join(_pinned(made.tree)))
    if epochs:
        answer.show(f"epochs: at the target of {short(int(made.target_tokens or 0))} tokens")


def _pinned(tree: SourceTree) -> list[str]:
    return [unit.name for unit in tree.units if unit.parts]


def _epochs(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
