"""What a study found, for people: the report page and the last lines that are printed."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from olmo_mixlaw import __version__
from olmo_mixlaw.report import design_figures, figures, page
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.available import AVAILABLE
from olmo_mixlaw.study.analysis import (
    LEVEL,
    Answer,
    answer_of,
    guessing_floor,
    knowledge,
    learning_ratio,
    recall_by_size,
    warnings,
    write_proposal,
)
from olmo_mixlaw.study.foreseen import foreseen, foreseen_text
from olmo_mixlaw.study.next_runs import NextRuns, next_runs
from olmo_mixlaw.study.plan import of_what
from olmo_mixlaw.study.settings import StudyConfig


@dataclass(frozen=True)
class Findings:
    """What a study found: the report's path, the lines to print last, and the same for JSON.

    A study without laws has no report: what it found is its table.
    """

    report: Path | None
    lines: list[str]
    document: dict[str, Any]


def conclude(study: StudyConfig, table: RunTable, output: Path) -> Findings:
    """Fit, compare, propose; writes `fits/`, `proposed.yaml` and `report.html` into `output`."""
    if not study.laws:
        folder = output / "table"
        said = f"no laws were asked for; the runs' losses and scores are in {folder}"
        return Findings(None, [said], {"table": folder})
    answer = answer_of(study, table)
    for name, fit in answer.fits.items():
        fit.save(output / "fits" / f"{name}.json")
    proposed = write_proposal(study, answer, output)
    minded = warnings(study, table, answer)
    later = next_runs(study, table, answer)
    shown = report_page(study, table, answer, minded, proposed, later)
    report = shown.write(output / "report.html")
    return Findings(
        report,
        _last_lines(study, table, answer, minded, report, proposed),
        {
            **_document(answer, minded),
            "next_runs": {"said": later.said, "runs": later.runs},
            "configuration": proposed,
            "report": report,
        },
    )


def report_page(
    study: StudyConfig,
    table: RunTable,
    answer: Answer,
    minded: list[str],
    proposed: Path,
    later: NextRuns,
) -> page.Page:
    """The page that shows what was run, what was fitted, what follows and what to mind."""
    design = table.design()
    sections = [_recall_section(study, table, d, t) for d, t in knowledge(study, table)]
    fit = answer.fits[answer.chosen]
    target = f"{figures.size_label(answer.rung.n_params)} parameters"
    sections += [
        page.Section(
            "Loss against ratio and size",
            f"Every run beside what **{answer.chosen}**, the law chosen below, says of it.",
            [
                page.figure(
                    figures.svg(figures.loss_against_ratio(design, fit)),
                    "Points are runs, a short line ties each to the law's value for exactly its "
                    "mixture; curves move one ratio and share the rest as in the mean mixture.",
                ),
                *_size_figure(table, answer),
            ],
        ),
        page.Section(
            "Which law to believe",
            f"Each law is fitted without {_left_out(answer)}, and scored there. Chosen: "
            f"**{answer.chosen}** ({answer.comparison.reason}).{_no_size(answer)}",
            [page.table(_quality(answer.comparison.frame), bold_row=answer.chosen)],
        ),
        _proposal_section(study, answer, minded, proposed),
        _next_section(later),
        page.Section("All runs", "Held-out loss in nats a token.", [page.table(_all_runs(table))]),
    ]
    best = answer.proposal.mixture(decimals=3)
    return page.Page(
        title=f"Study {study.name}",
        summary=f"{len(design)} runs: {of_what(study)} of {', '.join(study.domains)}, for a target "
        f"of {target} and {answer.n_tokens:,} tokens.",
        findings=[
            ("proposed mixture", ", ".join(f"{k} {v:.2f}" for k, v in best.items())),
            ("law chosen by held-out error", answer.chosen),
            (f"its error on {' / on '.join(_splits(answer).values())}", _errors(answer)),
        ],
        sections=sections,
        provenance={
            "versions": ", ".join(f"{name} {version}" for name, version in _versions().items()),
            "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "runs": f"{table.losses['run_id'].nunique()}",
            "table": "table/losses.csv, table/scores.csv",
            "fits": ", ".join(f"fits/{name}.json" for name in answer.fits),
        },
    )


def _size_figure(table: RunTable, answer: Answer) -> list[str]:
    """Loss against size, if there is more than one."""
    design = table.design()
    if len(np.unique(design.n_params)) == 1:
        return []
    target = answer.rung.n_params
    drawn = figures.loss_against_size(
        design, answer.fits[answer.chosen], target, answer.n_tokens, answer.proposal.ratios
    )
    return [
        page.figure(
            figures.svg(drawn),
            "Shaded: beyond the largest run, where the law extrapolates. The diamond is the "
            f"prediction for the proposed mixture at {figures.size_label(target)} parameters.",
        )
    ]


def _versions() -> dict[str, str]:
    """The versions of what trained, scored and fitted, where installed."""
    found = {"olmo-mixlaw": __version__, "Python": platform.python_version()}
    for name in ("ai2-olmo", "torch", "numpy", "scipy"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _recall_section(study: StudyConfig, table: RunTable, domain: str, task: str) -> page.Section:
    expected = foreseen(study, domain, Path(study.output) / "data" / "tokenizer.json")
    floor = guessing_floor(study, domain)
    drawn = figures.recall_against_ratio(table, domain, task, floor, expected)
    sentence = "; ".join(
        f"{figures.size_label(size)} parameters: {learning_ratio(row)}"
        for size, row in recall_by_size(table, domain, task).iterrows()
    )
    return page.Section(
        f"Where {domain} is learnt",
        f"The share of the facts of **{domain}** that a model completes exactly, against their "
        f"share of its training tokens. Recall passes one half at a ratio of: {sentence}.",
        [
            page.figure(
                figures.svg(drawn),
                "Points are runs with their standard error; the dashed line is guessing."
                + (f" {foreseen_text(expected)}" if expected else ""),
            )
        ],
    )


def _proposal_section(
    study: StudyConfig, answer: Answer, minded: list[str], proposed: Path
) -> page.Section:
    domains = list(study.domains)
    rows = {
        name: np.array([ratios.get(d, 0.0) for d in domains])
        for name, ratios in study.mixtures.items()
    }
    rows["proposed"] = answer.proposal.ratios
    weights = study.target.weights or dict.fromkeys(domains, 1 / len(domains))
    fit = answer.fits[answer.chosen]
    predicted = fit.predict(np.array(list(rows.values())), answer.rung.n_params, answer.n_tokens)
    weight = np.array([weights.get(t, 0.0) for t in fit.targets])
    frame = pd.DataFrame(predicted, index=list(rows), columns=list(fit.targets))
    frame["objective"] = predicted @ (weight / weight.sum())
    to_mind = "".join(f"\n**Mind:** {warning}" for warning in minded)
    said = ", ".join(f"{k} {v:g}" for k, v in weights.items())
    return page.Section(
        "The proposed mixture",
        f"The ratios with the least weighted loss at the target under **{answer.chosen}**; "
        f"weights: {said}.{to_mind}",
        [
            page.figure(figures.svg(figures.mixture_bars(domains, rows)), "Ratios by tokens."),
            page.table(_certainty(answer)),
            page.note(
                "Intervals of ratios hold 90 % of refits to resampled runs: how far other runs of "
                "this kind would move the answer. Those of losses hold these too, and 90 % of new "
                "runs at the target by the level beyond the table; "
                + (
                    "its error on the largest size held out is above."
                    if "largest_size" in _splits(answer)
                    else "nothing here tested that, because no size was held out."
                )
            ),
            page.table(frame, bold_row="proposed"),
            page.note("Losses that the law predicts at the target for every mixture tried."),
            page.code(answer.proposal.to_yaml() + f"# whole configuration: {proposed.name}"),
        ],
    )


def _next_section(later: NextRuns) -> page.Section:
    title = "Next runs worth buying"
    if later.plan is None or later.candidates is None or later.runs.empty:
        return page.Section(title, later.said, [])
    drawn = design_figures.of_plan(later.candidates, later.plan, later.unit, "FLOPs")
    cut = [name for name in later.runs if name.startswith(AVAILABLE)]
    shown = later.runs.drop(columns=["n_params", "seeds", *cut]).set_index("size")
    shown = shown.rename(columns=lambda name: name.removeprefix("w_"))
    for column in ("n_tokens", "price"):
        shown[column] = [f"{value:.3g}" for value in shown[column]]
    return page.Section(
        title,
        later.said,
        [
            page.figure(
                figures.svg(drawn),
                "Left: what is bought of each size. Then what the runs are expected to bring, as "
                "the planner's laws see it, batch by batch.",
            ),
            page.table(shown),
            page.note(
                "Half of what this study has cost, the runs of most worth first."
                + (" Sources are cut, so that runs repeat them as the target will." if cut else "")
            ),
        ],
    )


def _certainty(answer: Answer) -> pd.DataFrame:
    """A row a domain: its ratio and its loss at the target, each with an interval."""

    proposal = answer.proposal
    rows: dict[str, dict[str, object]] = {}
    for name, ratio, low, high in zip(
        proposal.domains, proposal.ratios, *answer.ratio_interval, strict=True
    ):
        rows[name] = {"best ratio": ratio, "90 % interval": f"{low:.2f} to {high:.2f}"}
    for name, loss, low, high in zip(
        proposal.targets, proposal.losses, *answer.loss_interval, strict=True
    ):
        rows.setdefault(name, {}).update(
            {"predicted loss": loss, "90 % interval of loss": f"{low:.3f} to {high:.3f}"}
        )
    return pd.DataFrame.from_dict(rows, orient="index")


def _quality(frame: pd.DataFrame) -> pd.DataFrame:
    """Held-out errors with a row a law and a column a (measure, split)."""
    names = {
        "mre": "error %",
        "mixture_r2": "mixture R²",
        "rho": "rank ρ",
        "regret": "regret (nats)",
    }
    wide = frame.pivot(index="law", columns="split", values=list(names))
    wide.columns = [f"{names[measure]}, {split.replace('_', ' ')}" for measure, split in wide]
    wide = wide.dropna(axis=1, how="all").astype(float)
    parameters = frame.drop_duplicates("law").set_index("law")["n_parameters"]
    wide.insert(0, "parameters", parameters.astype(int))
    return wide.loc[list(dict.fromkeys(frame["law"]))]


# What a split holds out, in words.
HELD = {
    "held_mixtures": ("some mixtures", "held-out mixtures"),
    "largest_size": ("the largest size", "the largest size, held out"),
    "longest_budget": ("the longest budget", "the longest budget, held out"),
}


def _splits(answer: Answer) -> dict[str, str]:
    """Each split that was made -> what its error is on, in words."""
    made = dict.fromkeys(answer.comparison.frame["split"])
    return {name: HELD.get(name, (name, name))[1] for name in made}


def _left_out(answer: Answer) -> str:
    made = dict.fromkeys(answer.comparison.frame["split"])
    return ", and without ".join(HELD.get(name, (name, name))[0] for name in made)


def _no_size(answer: Answer) -> str:
    """What nobody should read out of errors on mixtures alone."""
    if "largest_size" in _splits(answer):
        return ""
    return (
        " No size was held out (three are needed), so no error here says how far the law may be "
        "off at a size that was not trained."
    )


def _errors(answer: Answer) -> str:
    rows = answer.comparison.frame
    errors = rows[rows["law"] == answer.chosen].set_index("split")["mre"]
    return " / ".join(f"{errors[name]:.1f} %" for name in _splits(answer) if name in errors)


def _held_out(answer: Answer) -> str:
    rows = answer.comparison.frame
    errors = rows[rows["law"] == answer.chosen].set_index("split")["mre"]
    return ", ".join(
        f"{errors[name]:.1f} % on {words}"
        for name, words in _splits(answer).items()
        if name in errors and np.isfinite(errors[name])
    )


def _all_runs(table: RunTable) -> pd.DataFrame:
    wide = table.losses.pivot(index="run_id", columns="domain", values="loss")[table.targets]
    recall = table.scores[table.scores["metric"] == "exact_match"]
    for task, rows in recall.groupby("task"):
        wide[f"{task}"] = rows.set_index("run_id")["value"]
    return wide


def _document(answer: Answer, minded: list[str]) -> dict[str, Any]:
    """The answer for programs: numbers as they are, intervals of 90 %, losses in `unit`."""
    proposal, comparison = answer.proposal, answer.comparison
    names = {"mre": "mre_percent", "noise_floor": "noise_floor_percent"}
    ratios = zip(proposal.domains, proposal.ratios, *answer.ratio_interval, strict=True)
    losses = zip(proposal.targets, proposal.losses, *answer.loss_interval, strict=True)
    return {
        "verdict": comparison.verdict or None,
        "choice": answer.chosen,
        "reason": comparison.reason,
        "unit": comparison.unit,
        "rows": comparison.frame.rename(columns=names),
        "n_params": answer.rung.n_params,
        "n_tokens": answer.n_tokens,
        "mixture": proposal.mixture(decimals=4),
        "level": LEVEL,
        "ranges": [
            {"domain": name, "best": best, "drawn_low": low, "drawn_high": high}
            for name, best, low, high in ratios
        ],
        "losses": [
            {"target": name, "loss": loss, "low": low, "high": high}
            for name, loss, low, high in losses
        ],
        "warnings": minded,
    }


def _last_lines(
    study: StudyConfig,
    table: RunTable,
    answer: Answer,
    minded: list[str],
    report: Path,
    proposed: Path,
) -> list[str]:
    ratios = ", ".join(
        f"{name} {ratio:.2f} ({low:.2f} to {high:.2f})"
        for (name, ratio), low, high in zip(
            answer.proposal.mixture(decimals=4).items(), *answer.ratio_interval, strict=True
        )
    )
    lines = [
        f"law chosen by held-out error: {answer.chosen} ({_held_out(answer)}).{_no_size(answer)}"
    ]
    for domain, task in knowledge(study, table):
        for size, row in recall_by_size(table, domain, task).iterrows():
            lines.append(
                f"{task}, {figures.size_label(size)} parameters: one half is passed at a ratio of "
                f"{domain} {learning_ratio(row)}"
            )
    lines += [
        f"proposed mixture for {study.target.size} (and 90 % interval): {ratios}",
        *(f"mind: {warning}" for warning in minded),
        f"configuration: {proposed}",
        f"report: {report}",
    ]
    return lines
