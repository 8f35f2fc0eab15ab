"""The report of a study: its sections, the answer first, then what it rests on."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

from olmo_mixlaw import __version__
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report import design_figures, page
from olmo_mixlaw.report.panels import Foreseen
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.runs.available import AVAILABLE
from olmo_mixlaw.study.analysis import Answer, knowledge
from olmo_mixlaw.study.config import as_written, load_study, save_study
from olmo_mixlaw.study.foreseen import band_at_target
from olmo_mixlaw.study.next_runs import NextRuns
from olmo_mixlaw.study.places import FILE, TOKENIZER
from olmo_mixlaw.study.plan import Run, of_what
from olmo_mixlaw.study.report_answer import decision_section, verdict_section, what_if_section
from olmo_mixlaw.study.report_laws import laws_section, losses_section, surface_section
from olmo_mixlaw.study.report_recall import recall_section
from olmo_mixlaw.study.report_runs import cost_section, runs_section
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.what_if import WhatIf


@dataclass(frozen=True)
class Told:
    """All that a report tells: the answer and what follows from it."""

    answer: Answer
    minded: list[str]
    decision: pd.DataFrame
    expected: Mapping[str, Sequence[Foreseen]]  # where each domain's facts should be learned
    otherwise: WhatIf
    later: NextRuns
    cost: pd.DataFrame
    configuration: Path
    name: str | None = None


def report_page(
    study: StudyConfig,
    table: RunTable,
    runs: Sequence[Run],
    folders: dict[str, Path],
    output: Path,
    told: Told,
) -> page.Page:
    """The page that shows what follows, what else could, what was fitted and what was run."""
    answer = told.answer
    fit, proposal = answer.fits[answer.chosen], answer.proposal
    mixture = proposal.mixture()
    target = f"{size_label(answer.rung.n_params)} parameters and {answer.n_tokens:,} tokens"
    surface = surface_section(study, answer)
    flops = answer.rung.training_flops(answer.n_tokens)
    sections = [
        verdict_section(answer, told.minded),
        decision_section(study, answer, told.decision, told.configuration.name),
        what_if_section(answer, told.otherwise),
        *(
            recall_section(
                study,
                table,
                domain,
                task,
                told.expected[domain],
                (mixture[domain], band_at_target(study, domain, output / TOKENIZER)),
            )
            for domain, task in knowledge(study, table)
        ),
        laws_section(answer),
        losses_section(table, fit, (answer.rung.n_params, answer.n_tokens), proposal.ratios),
        *([surface] if surface else []),
        runs_section(runs, folders, table, output),
        next_section(told.later),
        cost_section(told.cost, target, flops),
        reproduce_section(study, table, list(answer.fits), told.name, output),
    ]
    scenario = f", scenario {told.name}" if told.name else ""
    return page.Page(
        title=f"Study {study.name}{scenario}",
        summary=f"{table.losses['run_id'].nunique()} runs: {of_what(study)} of "
        f"{', '.join(study.domains)}, for a target of {target}.",
        sections=sections,
    )


def next_section(later: NextRuns) -> page.Section:
    """The runs that are worth most next, or why none is planned."""
    title = "Next runs worth buying"
    if later.plan is None or later.candidates is None or later.runs.empty:
        return page.Section(title, later.said, [])
    drawn = design_figures.panels_of_plan(later.candidates, later.plan, later.unit, "FLOPs")
    cut = [name for name in later.runs if name.startswith(AVAILABLE)]
    shown = later.runs.drop(columns=["n_params", "seeds", *cut]).set_index("size")
    shown = shown.rename(columns=lambda name: name.removeprefix("w_")).astype(object)
    for column, write in (("n_tokens", size_label), ("price", "{:.2e}".format)):
        shown[column] = [page.counted(value, write) for value in shown[column]]
    shown = shown.rename(columns={"n_tokens": "tokens", "price": "FLOPs"})
    return page.Section(
        title,
        later.said,
        [
            page.chart(
                drawn,
                "First: what is bought of each size. Then what the runs are expected to bring, as "
                "the planner's laws see it, batch by batch.",
            ),
            page.table(shown, "Runs worth buying, those of most worth first", label="size"),
            page.Text(
                "Half of what this study has cost, the runs of most worth first."
                + (" Sources are cut, so that runs repeat them as the target will." if cut else ""),
                quiet=True,
            ),
        ],
    )


def reproduce_section(
    study: StudyConfig, table: RunTable, laws: Sequence[str], name: str | None, output: Path
) -> page.Section:
    """The commands, versions and seeds that make this page again, and the study file."""
    folder = shlex.quote(study.output)
    named = f" --name {name}" if name else ""
    named += "".join(f" {shlex.quote(change)}" for change in changes(study, output))
    seeds = sorted({int(s) for s in table.losses.get("seed", pd.Series(study.seeds))})
    facts = {
        "versions": ", ".join(f"{key} {version}" for key, version in versions().items()),
        "seeds": ", ".join(map(str, seeds)),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "fits": ", ".join(laws),
    }
    frame = pd.DataFrame({"": list(facts.values())}, index=list(facts), dtype=object)
    frame.loc["table"] = [page.Cell("table/losses.csv", href="table/losses.csv")]
    frame.loc["for programs"] = [
        page.Cell(file := f"report{f'-{name}' if name else ''}.json", href=file)
    ]
    frame.columns = ["what"]
    return page.Section(
        "How to make this again",
        "The first command trains what is missing and reports; the second reports alone.",
        [
            page.Code(f"olmo-mixlaw study run {folder}\nolmo-mixlaw study report {folder}{named}"),
            page.table(frame, "Where this comes from"),
            page.Fold("The study file, with every default", (page.Code(save_study(study)),)),
        ],
    )


def changes(study: StudyConfig, output: Path) -> list[str]:
    """The overrides that make this study of the one that its folder keeps, where it keeps one."""
    path = output / FILE
    try:
        kept = load_study(str(path)) if path.is_file() else study
    except MixlawError:  # a file of another version
        return []
    before, now = (_flat(as_written(it)) for it in (kept, study))
    differ = [key for key, value in now.items() if before.get(key) != value]
    return [f"{key}={json.dumps(now[key])}" for key in differ if key != "output"]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by the dotted keys that overrides have."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def versions() -> dict[str, str]:
    """The versions of what trained, scored and fitted, where installed."""
    found = {"olmo-mixlaw": __version__, "Python": platform.python_version()}
    for name in ("ai2-olmo", "ai2-olmo-core", "torch", "numpy", "scipy"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
