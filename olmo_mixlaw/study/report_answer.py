"""The answer's part of the report: verdict, decision, and what else could have been proposed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw import advice
from olmo_mixlaw.report import answer_figures, page
from olmo_mixlaw.report.style import ACCENT, BAND, INK, MARK, TRIED, Look
from olmo_mixlaw.runs.units import label as label_of
from olmo_mixlaw.study.analysis import Answer
from olmo_mixlaw.study.report_laws import errors_in_words, held_out_size
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.what_if import WhatIf

RANGE_KEYS = {
    "best": Look(ACCENT, "D", "-"),
    "as good as the best": Look(BAND, "s", "-"),
    "mixtures tried": Look(TRIED, "s", "-"),
    "90 % of refits' optima": Look(INK, "o", "-"),
    "current": Look(MARK, "s", "-"),
}


def verdict_section(answer: Answer, minded: list[str]) -> page.Section:
    """The verdicts, each with the interval of its gain and what speaks against it."""
    proposal = answer.proposal
    mixture = ", ".join(f"{k} {v:.2f}" for k, v in proposal.mixture().items())
    cards: list[page.Block] = []
    told: set[str] = set()
    for verdict in answer.verdicts:
        facts = [(f"gain over {verdict.against}", f"{verdict.gain:.2f} {verdict.unit}")]
        drawn = None
        if np.isfinite([verdict.low, verdict.high]).all():
            between = f"{verdict.low:.2f} to {verdict.high:.2f} {verdict.unit}"
            facts.append(("its 90 % interval", between))
            title = f"Gain over {verdict.against}, with its 90 % interval"
            figure = answer_figures.gain_interval(
                verdict.gain, verdict.low, verdict.high, verdict.unit
            )
            drawn = page.chart([(figure, title, f"{facts[0][1]}, {between}.")], f"{title}.")
        cautions = list(verdict.cautions)
        if not told:
            facts.append(("proposed mixture", mixture))
            facts.append(("law", f"{answer.chosen}; off by {errors_in_words(answer)}"))
            cautions += minded
        cautions = [text for text in dict.fromkeys(cautions) if text not in told]
        told |= {"", *cautions}
        card = page.Card(verdict.kind, verdict.sentence, tuple(facts), tuple(cautions), drawn)
        cards.append(card)
    return page.Section("Verdict", "", cards)


def decision(study: StudyConfig, answer: Answer) -> pd.DataFrame:
    """A row a domain: current, best, 90 % of refits, as good, tried, and epochs, as numbers."""
    fit, best = answer.fits[answer.chosen], answer.proposal
    good = advice.near_optimal(fit, best, **study.target.limits)
    rows = pd.DataFrame({"domain": best.domains})
    if (current := current_of(answer)) is not None:
        rows["current"] = current
    rows["best"] = best.ratios
    rows["drawn_low"], rows["drawn_high"] = answer.ratio_interval
    rows["low"], rows["high"] = good["low"].to_numpy(), good["high"].to_numpy()
    rows["tried_low"], rows["tried_high"] = fit.mixtures.min(0), fit.mixtures.max(0)
    epochs = np.full(len(rows), np.nan) if best.epochs is None else np.asarray(best.epochs, float)
    rows["epochs"] = np.where(epochs > 0, epochs, np.nan)
    return rows


def current_of(answer: Answer) -> np.ndarray | None:
    """The mixture (K,) that the user has now, where the study names it."""
    return answer.verdicts[1].ratios if len(answer.verdicts) > 1 else None


def decision_section(
    study: StudyConfig, answer: Answer, rows: pd.DataFrame, configuration: str
) -> page.Section:
    """What to set each ratio to, how free it is, and what losses that is expected to bring."""

    def between(low: str, high: str) -> list[str]:
        pairs = zip(rows[low], rows[high], strict=True)
        return [f"{a:.2f} to {b:.2f}" for a, b in pairs]

    shown = pd.DataFrame(index=rows["domain"])
    if "current" in rows:
        shown["current"] = rows["current"].to_numpy()
    shown["proposed"] = rows["best"].to_numpy()
    shown["90 % interval"] = between("drawn_low", "drawn_high")
    shown["as good"] = between("low", "high")
    shown["tried"] = between("tried_low", "tried_high")
    shown["epochs needed"] = [
        page.Cell("no end") if np.isnan(v) else page.Cell(f"{v:.2g}", v) for v in rows["epochs"]
    ]
    keys = {n: k for n, k in RANGE_KEYS.items() if n != "current" or "current" in rows}
    said = "; ".join(f"{r.domain}: best {r.best:.2f}" for r in rows.itertuples())
    drawn = answer_figures.ratio_ranges(rows)
    weights = study.target.weights or dict.fromkeys(answer.proposal.targets, 1)
    tested = (
        "its error on the largest size held out is below."
        if held_out_size(answer)
        else "nothing here tested that, because no size was held out."
    )
    blocks: list[page.Block] = [
        page.table(shown, "Ratios by tokens, a row a domain", label="domain", digits=2),
        page.chart(
            [(drawn, "Ranges of each ratio", said)],
            "Where the bar of what is as good is wide, the ratio is yours to choose.",
            looks=keys,
            wide=True,
        ),
        page.Text(
            "As good: this ratio alone may move so far, the others following, while the objective "
            "stays within what two runs of one mixture may differ by. The 90 % interval is that of "
            "refits to resampled runs: how far other runs of this kind would move the answer.",
            quiet=True,
        ),
        page.table(
            losses_at_target(answer),
            f"Losses expected at the target ({label_of(answer.proposal.unit)})",
            label="loss on",
        ),
        page.Text(
            "An interval holds 90 % of refits and 90 % of new runs at the target by the level "
            f"beyond the table; {tested}",
            quiet=True,
        ),
        page.Fold(
            "The mixture as YAML",
            (page.Code(answer.proposal.to_yaml() + f"# whole configuration: {configuration}"),),
        ),
    ]
    wanted = ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    return page.Section(
        "The proposed mixture",
        f"The ratios with the least weighted loss at the target under **{answer.chosen}**; "
        f"weights: {wanted}.",
        blocks,
    )


def losses_at_target(answer: Answer) -> pd.DataFrame:
    """The losses that the chosen law predicts for the proposal, with intervals."""
    proposal = answer.proposal
    ends = zip(*answer.loss_interval, strict=True)
    return pd.DataFrame(
        {
            "predicted": [float(v) for v in proposal.losses],
            "90 % interval": [f"{low:.3f} to {high:.3f}" for low, high in ends],
        },
        index=list(proposal.targets),
    )


def what_if_section(answer: Answer, found: WhatIf) -> page.Section:
    """Every other proposal with its price, and the sentences that reconcile them."""
    domains = answer.proposal.domains
    rows: dict[str, list[Any]] = {"proposed": [*map(float, answer.proposal.ratios), 0.0]}
    for row in found.scenarios:
        rows[row.what] = [*map(float, row.ratios), float(row.cost)]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*domains, "cost %"])
    return page.Section(
        "What if",
        "\n".join(found.said),
        [
            page.table(
                frame,
                "What would be proposed otherwise, and what that costs",
                label="what if",
                digits=2,
                chosen="proposed",
            ),
            page.Text(
                f"Cost: how much worse the objective at the target would be, as {answer.chosen} "
                "and the target's own weights have it. Two runs of one mixture may differ by "
                f"{found.noise:.2f} %.",
                quiet=True,
            ),
        ],
    )
