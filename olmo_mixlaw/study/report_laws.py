"""The laws' part of the report: which is believed, by which errors, and how it fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from olmo_mixlaw.advice.goal import MeanLoss
from olmo_mixlaw.laws import Fit
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report import page, panels, surfaces
from olmo_mixlaw.report.style import looks
from olmo_mixlaw.runs import Design, RunTable
from olmo_mixlaw.study.analysis import Answer
from olmo_mixlaw.study.settings import StudyConfig

# More panels of a kind are left out, those first whose ratios were varied least.
MOST_PANELS = 12
# Mixtures followed over sizes.
MOST_FOLLOWED = 6
# What a split holds out, in words.
HELD = {
    "held_mixtures": ("some mixtures", "held-out mixtures"),
    "largest_size": ("the largest size", "the largest size, held out"),
    "longest_budget": ("the longest budget", "the longest budget, held out"),
}


def splits_of(answer: Answer) -> dict[str, str]:
    """Each split that was made -> what its error is on, in words."""
    made = dict.fromkeys(answer.comparison.frame["split"])
    return {name: HELD.get(name, (name, name))[1] for name in made}


def held_out_size(answer: Answer) -> bool:
    """Whether a size was held out, so that reaching beyond them was tested at all."""
    return "largest_size" in splits_of(answer)


def no_size(answer: Answer) -> str:
    """What nobody should read out of errors on mixtures alone."""
    if held_out_size(answer):
        return ""
    return (
        " No size was held out (three are needed), so no error here says how far the law may be "
        "off at a size that was not trained."
    )


def errors_in_words(answer: Answer) -> str:
    """The chosen law's error on each split: `3.1 % on held-out mixtures, 7.4 % on ...`."""
    rows = answer.comparison.frame
    errors = rows[rows["law"] == answer.chosen].set_index("split")["mre"]
    return ", ".join(
        f"{errors[name]:.1f} % on {words}"
        for name, words in splits_of(answer).items()
        if name in errors and np.isfinite(errors[name])
    )


def laws_section(answer: Answer) -> page.Section:
    """Four columns that decide, and all that was measured on demand."""
    frame = answer.comparison.frame
    left = ", and without ".join(HELD.get(name, (name, name))[0] for name in splits_of(answer))
    blocks: list[page.Block] = [
        page.table(_short(frame), "Laws", label="law", digits=2, chosen=answer.chosen)
    ]
    blocks += [page.Text(note, mind=True) for note in answer.left_out]
    blocks.append(
        page.Fold(
            "Every measure",
            (page.table(_whole(frame), "Held-out measures of every law", label="law"),),
        )
    )
    return page.Section(
        "Which law to believe",
        f"Each law is fitted without {left}, and scored there. Chosen: "
        f"**{answer.chosen}** ({answer.comparison.reason}).{no_size(answer)}",
        blocks,
    )


def _short(frame: pd.DataFrame) -> pd.DataFrame:
    """Parameters, error on mixtures and on the last other split, R2 between mixtures."""
    order = list(dict.fromkeys(frame["law"]))
    by = frame.pivot(index="law", columns="split", values="mre").loc[order]
    rows = frame.drop_duplicates("law").set_index("law").loc[order]
    shown = pd.DataFrame(index=order)
    count = rows["n_parameters"].astype(float)
    shown["parameters"] = [None if np.isnan(v) else int(v) for v in count]
    shown["parameters"] = shown["parameters"].astype(object)
    for split in list(dict.fromkeys(frame["split"]))[:2]:
        shown[f"error %, {HELD.get(split, (split,))[0]}"] = by[split].astype(float)
    if "held_mixtures" in by:
        mixtures = frame[frame["split"] == "held_mixtures"].set_index("law")["mixture_r2"]
        shown["R² between mixtures"] = mixtures.reindex(order).astype(float)
    return shown


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Held-out measures with a row a law and a column a (measure, split)."""
    names = {
        "mre": "error %",
        "mixture_r2": "R² between mixtures",
        "objective_r2": "R² of the objective",
        "rho": "rank ρ",
        "regret": "regret",
    }
    wide = frame.pivot(index="law", columns="split", values=list(names))
    wide.columns = [f"{names[measure]}, {split.replace('_', ' ')}" for measure, split in wide]
    return wide.dropna(axis=1, how="all").astype(float).loc[list(dict.fromkeys(frame["law"]))]


def shown_targets(design: Design) -> list[str]:
    """The targets that have a panel, in their order: those whose own ratio was varied most."""
    own = [name for name in design.targets if name in design.domains]
    range_of = {name: np.ptp(design.ratios[:, design.domains.index(name)]) for name in own}
    kept = sorted(own, key=lambda name: -range_of[name])[:MOST_PANELS]
    return [name for name in own if name in kept]


def losses_section(
    table: RunTable,
    fit: Fit | None = None,
    at: tuple[float, float] | None = None,
    proposal: np.ndarray | None = None,
) -> page.Section:
    """Every run's loss against ratio and size, beside what a law says of it, if there is one."""
    design = table.design()
    shown = shown_targets(design)
    name = "" if fit is None else fit.law.label
    keys = {size_label(size): look for size, look in panels.size_looks(design).items()}
    lines = (
        "Points are runs, a short line ties each to the law's value for exactly its mixture; "
        "curves move one ratio and share the rest as in the mean mixture."
        if fit is not None
        else "Points are runs."
    )
    charts: list[page.Block] = [
        page.chart(
            [
                (
                    panels.loss_against_ratio(design, target, fit),
                    f"Loss on {target} against its ratio",
                    _falls(design, target),
                )
                for target in shown
            ],
            f"{_left_out(shown, design)}{lines} Bars stand for many runs: median and nine tenths.",
            looks=keys,
        )
    ]
    if len(np.unique(design.n_params)) > 1:
        followed = _followed(table, design, fit)
        beyond = (
            ""
            if at is None
            else " Shaded: beyond the largest run, where the law extrapolates. The diamond is the "
            f"prediction for the proposed mixture at {size_label(at[0])} parameters."
        )
        charts.append(
            page.chart(
                [
                    (
                        panels.loss_against_size(design, target, followed, fit, at, proposal),
                        f"Loss on {target} against size",
                        _falls(design, target),
                    )
                    for target in shown
                ],
                f"A line a mixture.{beyond}",
                looks=looks(list(followed)),
            )
        )
    said = "Every run" if fit is None else f"Every run beside what **{name}** says of it"
    return page.Section("Loss against ratio and size", f"{said}.", charts)


def surface_section(study: StudyConfig, answer: Answer) -> page.Section | None:
    """The landscape of the objective and of the main domains' losses; None without three."""
    fit, best = answer.fits[answer.chosen], answer.proposal
    if len(best.domains) < 3:
        return None
    pair = surfaces.main_pair(best.ratios)
    goal = MeanLoss.of(study.target.weights or None, best.targets)

    marked = [surfaces.Point("current", verdict.ratios) for verdict in answer.verdicts[1:2]]
    both = [best.domains[k] for k in pair]

    def losses(mixtures: np.ndarray) -> np.ndarray:
        return fit.predict(mixtures, best.n_params, best.n_tokens)

    def drawn(value: Callable[[np.ndarray], np.ndarray], title: str) -> tuple[Figure, str, str]:
        figure = surfaces.landscape(
            lambda mixtures: value(losses(mixtures)),
            best.domains,
            best.ratios,
            pair,
            fit.mixtures,
            marked,
            title,
        )
        said = f"Contours over the ratios of {both[0]} and {both[1]}."
        return figure, f"{title} over two ratios", said

    charts = [drawn(lambda predicted: goal(predicted)[0], "objective")]
    for column, name in enumerate(best.targets):
        if name in both:
            charts.append(drawn(partial(_column, column=column), f"loss on {name}"))
    return page.Section(
        "The landscape around it",
        f"What **{answer.chosen}** expects at the target over the two largest ratios, "
        f"{both[0]} and {both[1]}; the other domains share the rest as in the proposal.",
        [
            page.chart(
                charts,
                "Lines: 0.5 % (unnamed), 2 % and so on above the least of this slice. Crosses are "
                "mixtures tried, of "
                "which only these two ratios can be seen here.",
            )
        ],
    )


def _column(losses: np.ndarray, column: int) -> np.ndarray:
    return losses[:, column]


def _followed(table: RunTable, design: Design, fit: Fit | None) -> dict[str, np.ndarray]:
    """Mixtures (K,) by name that are followed over sizes, best first: all if they are few."""
    mixtures, first = np.unique(design.ratios.round(9), axis=0, return_index=True)
    mean = np.nanmean(design.losses / np.nanmean(design.losses, 0), 1)
    which = [np.isclose(design.ratios, mixture, atol=1e-6).all(1) for mixture in mixtures]
    value = np.array([mean[rows].mean() for rows in which])
    order = np.argsort(value, kind="stable")
    if len(order) > MOST_FOLLOWED:
        order = order[np.linspace(0, len(order) - 1, MOST_FOLLOWED - 2).round().astype(int)]
    names = _names(table, design)
    return {names[first[i]]: mixtures[i] for i in order}


def _names(table: RunTable, design: Design) -> list[str]:
    """What each row's mixture is called, or its largest ratio where it has no name."""
    known: dict[tuple[float, ...], str] = {}
    if "mixture" in table.losses:
        columns = [f"w_{domain}" for domain in design.domains]
        rows = table.losses.drop_duplicates("mixture")
        ratios = rows[columns].to_numpy(float).round(6)
        known = {tuple(r): str(n) for r, n in zip(ratios, rows["mixture"], strict=True)}
    return [
        known.get(tuple(r.round(6)), f"{design.domains[int(r.argmax())]} {r.max():.2f}")
        for r in design.ratios
    ]


def _falls(design: Design, target: str) -> str:
    losses = design.losses[:, design.targets.index(target)]
    return f"{len(losses)} runs, losses from {np.nanmin(losses):.3f} to {np.nanmax(losses):.3f}."


def _left_out(shown: list[str], design: Design) -> str:
    count = sum(name in design.domains for name in design.targets)
    if count <= len(shown):
        return ""
    return f"{len(shown)} of {count} domains, those whose ratios were varied most. "
