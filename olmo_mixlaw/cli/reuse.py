"""`olmo-mixlaw reuse`: what of an old mixture can stay when its sources change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from olmo_mixlaw.cli.answer import Answer, answers
from olmo_mixlaw.cli.options import loaded, refuse_input
from olmo_mixlaw.errors import ConfigError, first_of

if TYPE_CHECKING:
    from olmo_mixlaw.swarm.reuse import Reuse
    from olmo_mixlaw.swarm.sources import SourceTree

SHOWN = 12  # sources that a line names


@click.command()
@click.argument("old_mixture", metavar="OLD_MIXTURE")
@click.argument("new_sources", metavar="NEW_SOURCES")
@click.option(
    "--old-sources",
    metavar="LIST",
    help="The source list of the old mixture: a source whose files or tokens differ is revised. "
    "Default: sources of the same name are unchanged.",
)
@click.option(
    "--revised", multiple=True, metavar="SOURCE", help="Its data changed, whatever the lists say."
)
@click.option(
    "--unchanged", multiple=True, metavar="SOURCE", help="Its data didn't, whatever they say."
)
@click.option(
    "--free",
    multiple=True,
    metavar="SOURCE",
    help="Search its ratio too, though it is unchanged (partial reuse).",
)
@click.option(
    "--neighbours",
    type=click.IntRange(1),
    help="Also free so many that the change moves most, by the --fit of the old runs.",
)
@click.option("--fit", "fit_path", metavar="FIT", help="The fit that chose the old mixture.")
@click.option(
    "--name", default=None, help="What the kept sources are called together. Default: existing."
)
@click.option(
    "--all-free",
    is_flag=True,
    help="Pin nothing: write all sources, to be drawn about the old mixture. Its optimum needs no "
    "--expand.",
)
@click.option("--tokenizer", help="Tokenizer file, to count the tokens of datasets.")
@click.option("--dtype", help="Of token files that don't say theirs. Default: uint16.")
@click.option(
    "--expand",
    metavar="MIXTURE",
    help="The best mixture of the reduced sources: give the whole one, over all sources.",
)
@click.option(
    "--old-runs",
    nargs=2,
    metavar="RATIOS METRICS",
    help="The old swarm's two files, with --new-runs: write both swarms as one table, by all "
    "sources, into the folder --out.",
)
@click.option(
    "--new-runs", nargs=2, metavar="RATIOS METRICS", help="The two files of the reduced swarm."
)
@click.option(
    "--out", metavar="FILE", help="Write the reduced source list, or with --expand the mixture."
)
@answers
def reuse(
    answer: Answer,
    old_mixture: str,
    new_sources: str,
    old_sources: str | None,
    expand: str | None,
    out: str | None,
    **options: Any,
) -> None:
    """Keep of OLD_MIXTURE what a change of its sources to NEW_SOURCES leaves as it was.

    What is unchanged keeps its inner ratios and becomes one source, `existing`; the reduced source
    list is what `olmo-mixlaw swarm` takes. OLD_MIXTURE is what `optimize --out` writes, a training
    configuration, an Olmix launch or optimum, or a source list of OLMo-core.
    """
    from olmo_mixlaw.swarm.config import read_sources
    from olmo_mixlaw.swarm.listed import read_mixture, write_mixture, write_sources
    from olmo_mixlaw.swarm.sources import Source, SourceTree

    if options["all_free"] and expand is not None:
        raise ConfigError("--all-free: its optimum names all sources, so there is no --expand")
    refuse_input("--out", out, old_mixture, new_sources, old_sources, expand, options["fit_path"])
    counting = {"tokenizer": options["tokenizer"], "dtype": options["dtype"]}
    mixture = read_mixture(old_mixture)
    if old_sources is None:
        old = SourceTree(tuple(Source(name) for name in mixture), old_mixture)
    else:
        old = read_sources([old_sources], **counting)
    new = read_sources([new_sources], **counting)
    plan = _planned(mixture, old, new, options)
    if options["old_runs"] or options["new_runs"]:
        _join_runs(answer, plan, old, out, options)
        return
    whole = None
    if expand is not None or (not plan.runs and not options["all_free"]):
        whole = plan.mixture(None if expand is None else read_mixture(expand))
    _show(answer, plan, whole)
    answer.document = document(plan, whole) | {"saved": out}
    if out is None:
        return
    if options["all_free"]:
        head = f"all sources, about {old_mixture}"
        print(f"saved to {write_sources(plan.centred, out, head)}")
        answer.show(f"next: olmo-mixlaw swarm {out}")
        return
    if whole is not None:
        print(f"saved the mixture of all {len(whole)} sources to {write_mixture(whole, out)}")
        return
    head = f"{old_mixture} with its unchanged sources as one; expand with olmo-mixlaw reuse"
    print(f"saved to {write_sources(plan.reduced, out, head)}")
    answer.show(f"next: olmo-mixlaw swarm {out} -n {plan.runs}, then join --old-runs")


def _planned(
    mixture: Mapping[str, float], old: SourceTree, new: SourceTree, options: Mapping[str, Any]
) -> Reuse:
    """The plan, with the neighbours that a fit names freed. Raises `ConfigError`."""
    from olmo_mixlaw.swarm.reuse import VIRTUAL, interacting, plan_reuse

    how = {key: options[key] for key in ("revised", "unchanged")}
    how["virtual"] = options["name"] or VIRTUAL
    plan = plan_reuse(mixture, old, new, free=options["free"], **how)
    count, path = options["neighbours"], options["fit_path"]
    if count is None and path is None:
        return plan
    if count is None or path is None:
        raise ConfigError("--neighbours and --fit: each needs the other")
    fitted = loaded(path, level=False)
    at = fitted.scene.n_range[1], fitted.scene.d_range[1]
    before = np.array([_ratio(name, plan.old_ratios) for name in fitted.domains])
    if not before.sum() > 0:
        raise ConfigError(f"--fit {path}: knows none of the sources of the old mixture")
    free = interacting(
        plan,
        fitted.domains,
        before / before.sum(),
        lambda ratios: fitted.ratio_gradient(ratios, *at)[0].mean(0),
        count,
    )
    return plan_reuse(mixture, old, new, free=[*options["free"], *free], **how)


def _ratio(name: str, ratios: Mapping[str, float]) -> float:
    """The old ratio of a source, in parts or whole."""
    from olmo_mixlaw.swarm.sources import SEPARATOR

    inside = f"{name}{SEPARATOR}"
    return sum(r for leaf, r in ratios.items() if leaf == name or leaf.startswith(inside))


def _join_runs(
    answer: Answer, plan: Reuse, old: SourceTree, out: str | None, options: Mapping[str, Any]
) -> None:
    """Write both swarms' runs as one table. Raises `ConfigError`."""
    from olmo_mixlaw.errors import complain
    from olmo_mixlaw.swarm.mixtures import RATIOS
    from olmo_mixlaw.swarm.together import METRICS, read_swarm, together

    if not options["old_runs"] or not options["new_runs"] or out is None:
        raise ConfigError("--old-runs, --new-runs and --out (a folder) go together")
    new = plan.centred if options["all_free"] else plan.reduced
    before, after = options["old_runs"], options["new_runs"]
    for name in (RATIOS, METRICS):
        refuse_input("--out", str(Path(out) / name), *before, *after)
    found = together(
        plan, read_swarm(before[0], before[1], old), read_swarm(after[0], after[1], new)
    )
    for note in found.notes:
        complain(note)
    files = found.write(out)
    answer.document = {"runs": len(found.ids), "sources": found.names, "gone": found.gone}
    answer.document |= {"metrics": list(found.metrics), "files": files}
    answer.show(f"{len(found.ids)} runs over {len(found.names)} sources, written to {out}")
    caps = "".join(f' --at-most "{name}=0"' for name in found.gone)
    if caps:
        answer.show(f"what is gone stays out by olmo-mixlaw optimize FIT{caps}")


def document(plan: Reuse, whole: Mapping[str, float] | None) -> dict[str, Any]:
    """A plan as `--json` has it."""
    return {
        "changes": dict(plan.changes),
        "kept": dict(zip(plan.kept, plan.inner, strict=True)),
        "units": list(plan.units),
        "prior": dict(zip(plan.units, plan.reduced.prior.tolist(), strict=True)),
        "runs": plan.runs,
        "full_units": len(plan.tree.names),
        "full_runs": plan.full_runs,
        "notes": list(plan.notes),
        "mixture": whole,
    }


def _show(answer: Answer, plan: Reuse, whole: Mapping[str, float] | None) -> None:
    kinds: dict[str, list[str]] = {}
    for name, kind in plan.changes.items():
        kinds.setdefault(kind, []).append(name)
    for kind, names in kinds.items():
        answer.show(f"{kind:9} {first_of(names, SHOWN)}")
    order = np.argsort(-np.array(plan.inner), kind="stable")
    largest = [f"{plan.kept[i]} {plan.inner[i]:.3f}" for i in order]
    answer.show(f"{'kept':9} {first_of(largest, SHOWN)}")
    answer.show()
    for note in plan.notes:
        answer.show(f"mind: {note}")
    if not plan.runs:
        answer.show(
            "nothing is left to search, so no runs are needed: the mixture is the old one without "
            "what was removed"
        )
    else:
        answer.show(
            f"{len(plan.units)} free units, {plan.units[0]} and what changed: about {plan.runs} "
            f"runs, where a swarm over all {len(plan.tree.names)} takes {plan.full_runs}"
        )
    if whole is None:
        answer.show("\nprior of the draws")
        for name, ratio in zip(plan.units, plan.reduced.prior.tolist(), strict=True):
            answer.show(f"  {name:32} {ratio:.4f}")
        return
    answer.show("\nthe whole mixture")
    for name, ratio in whole.items():
        answer.show(f"  {name:32} {ratio:.6f}")
