"""What a study found: the report, the same for programs, and the last lines that are printed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.errors import ConfigError
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report.document import jsonable
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.analysis import (
    LEVEL,
    answer_of,
    knowledge,
    learning_ratio,
    recall_by_size,
    warnings,
    write_proposal,
)
from olmo_mixlaw.study.foreseen import foreseen
from olmo_mixlaw.study.next_runs import next_runs
from olmo_mixlaw.study.places import TOKENIZER, run_folder
from olmo_mixlaw.study.plan import plan
from olmo_mixlaw.study.report_answer import decision
from olmo_mixlaw.study.report_laws import errors_in_words, no_size
from olmo_mixlaw.study.report_page import Told, report_page, versions
from olmo_mixlaw.study.report_runs import cost_of
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.what_if import what_if

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Findings:
    """What a study found: the report's path, the lines to print last, and the same for JSON.

    A study without laws has no report: what it found is its table.
    """

    report: Path | None
    lines: list[str]
    document: dict[str, Any]


def check_name(name: str | None) -> None:
    """Raises `ConfigError` for a scenario's name that can't be part of a file's."""
    if name is not None and not _NAME.fullmatch(name):
        raise ConfigError(f"--name: letters, digits, '_', '.' and '-' are accepted, found {name!r}")


def conclude(
    study: StudyConfig,
    table: RunTable,
    output: Path,
    *,
    folders: dict[str, Path] | None = None,
    name: str | None = None,
) -> Findings:
    """Fit, compare, propose; writes `fits/`, `proposed.yaml`, `report.html` and `report.json`.

    All into `output`. With the `name` of a scenario the files are `proposed-<name>.yaml`,
    `report-<name>.html` and so on, so that none takes the place of another. `folders` are those of
    the runs, where they aren't the ones that a study gives them.
    """
    check_name(name)
    if not study.laws:
        folder = output / "table"
        said = f"no laws were asked for; the runs' losses and scores are in {folder}"
        return Findings(None, [said], {"table": folder})
    runs, made = plan(study), set(table.losses["run_id"])
    folders = folders or {run.run_id: run_folder(output, run.run_id) for run in runs}
    tail = f"-{name}" if name else ""
    answer = answer_of(study, table)
    for law, fit in answer.fits.items():
        fit.save(output / f"fits{tail}" / f"{law}.json")
    proposed = write_proposal(study, answer, output, f"proposed{tail}.yaml")
    minded = warnings(study, table, answer)
    expected = {d: foreseen(study, d, output / TOKENIZER) for d, _ in knowledge(study, table)}
    at_target = {domain: rows[-1] for domain, rows in expected.items() if rows}
    told = Told(
        answer=answer,
        minded=minded,
        decision=decision(study, answer),
        expected=expected,
        otherwise=what_if(study, answer, at_target),
        later=next_runs(study, table, answer),
        cost=cost_of([run for run in runs if run.run_id in made], folders),
        configuration=proposed,
        name=name,
    )
    shown = report_page(study, table, runs, folders, output, told)
    report = shown.write(output / f"report{tail}.html")
    document = {**_document(study, table, told), "report": report}
    text = json.dumps(jsonable(document), indent=1, allow_nan=False)
    write_text(output / f"report{tail}.json", text + "\n")
    return Findings(report, _last_lines(study, table, told, report), document)


def _document(study: StudyConfig, table: RunTable, told: Told) -> dict[str, Any]:
    """The answer for programs: numbers as they are, intervals of 90 %, losses in `unit`."""
    answer = told.answer
    proposal, comparison = answer.proposal, answer.comparison
    names = {"mre": "mre_percent", "noise_floor": "noise_floor_percent"}
    ends = zip(proposal.targets, proposal.losses, *answer.loss_interval, strict=True)
    return {
        "study": study.name,
        "scenario": told.name,
        "verdicts": [verdict.document() for verdict in answer.verdicts],
        "choice": answer.chosen,
        "reason": comparison.reason,
        "near": list(comparison.near),
        "unit": comparison.unit,
        "rows": comparison.frame.rename(columns=names),
        "n_params": answer.rung.n_params,
        "n_tokens": answer.n_tokens,
        "weights": study.target.weights or None,
        "bounds": study.target.bounds or None,
        "mixture": proposal.mixture(decimals=4),
        "level": LEVEL,
        "ranges": told.decision,
        "losses": [
            {"target": name, "loss": loss, "low": low, "high": high}
            for name, loss, low, high in ends
        ],
        "what_if": {
            "said": told.otherwise.said,
            "noise_percent": told.otherwise.noise,
            "scenarios": [
                {
                    "kind": row.kind,
                    "what": row.what,
                    "law": row.law,
                    "mixture": dict(zip(proposal.domains, row.ratios, strict=True)),
                    "cost_percent": row.cost,
                }
                for row in told.otherwise.scenarios
            ],
        },
        "recall": {
            task: recall_by_size(table, domain, task)
            .stack()
            .rename("recall")
            .reset_index()
            .to_dict("records")
            for domain, task in knowledge(study, table)
        },
        "warnings": told.minded,
        "next_runs": {"said": told.later.said, "runs": told.later.runs},
        "cost": told.cost,
        "versions": versions(),
        "configuration": told.configuration,
    }


def _last_lines(study: StudyConfig, table: RunTable, told: Told, report: Path) -> list[str]:
    answer, rows = told.answer, told.decision
    ratios = ", ".join(
        f"{domain} {ratio:.2f} ({row.drawn_low:.2f} to {row.drawn_high:.2f})"
        for (domain, ratio), row in zip(
            answer.proposal.mixture(decimals=4).items(), rows.itertuples(), strict=True
        )
    )
    chosen = f"law chosen by held-out error: {answer.chosen} ({errors_in_words(answer)})."
    lines = [chosen + no_size(answer)]
    for domain, task in knowledge(study, table):
        for size, row in recall_by_size(table, domain, task).iterrows():
            lines.append(
                f"{task}, {size_label(size)} parameters: one half is passed at a ratio of "
                f"{domain} {learning_ratio(row)}"
            )
    return [
        *lines,
        f"proposed mixture for {study.target.size} (and 90 % interval): {ratios}",
        *(f"{verdict.kind}: {verdict.sentence}" for verdict in answer.verdicts),
        *(f"mind: {warning}" for warning in told.minded),
        f"configuration: {told.configuration}",
        f"report: {report}",
    ]
