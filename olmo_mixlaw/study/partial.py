"""The report of a study that still runs: what its finished runs show so far.

It is written after every run and must cost next to nothing: one quick law without a bootstrap, and
none at all before there are runs enough. Whatever goes wrong with it never reaches the study.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from olmo_mixlaw import advice, laws
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.laws.law import resolve
from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report import page
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.analysis import knowledge
from olmo_mixlaw.study.collect import collect
from olmo_mixlaw.study.failures import DONE, FAILED
from olmo_mixlaw.study.foreseen import foreseen
from olmo_mixlaw.study.places import TOKENIZER
from olmo_mixlaw.study.plan import Run, of_what, rung_of, whole_batches
from olmo_mixlaw.study.report_laws import losses_section
from olmo_mixlaw.study.report_recall import recall_section
from olmo_mixlaw.study.report_runs import runs_section
from olmo_mixlaw.study.settings import StudyConfig

# Of the time that passes, a report that is written again and again takes at most this part of one
# processor.
SHARE = 0.1
STARTS = 2
READING = 2.0  # seconds that a page spends on reading runs
# Laws of which one fit takes a fraction of a second, those that predict best first.
QUICK = ("two_pool", "transfer", "additive")
REPORT = "report.html"

_log = logging.getLogger(__name__)
# report -> when it was last written, and its cost (s)
_written: dict[Path, tuple[float, float]] = {}
_read: dict[Path, RunTable] = {}  # what runs have left, by their folders: it never changes


def refresh(
    study: StudyConfig, runs: Sequence[Run], folders: dict[str, Path], output: Path
) -> Path | None:
    """Write `report.html` of the runs finished so far; the path, or None where that failed.

    It is left as it is while writing it again would cost more than `SHARE` of the time, but never
    for the last run. Nothing is raised: a report must not end a study.
    """
    report = output / REPORT
    try:
        done = [run for run in runs if (folders[run.run_id] / DONE).is_file()]
        last, cost = _written.get(report, (0.0, 0.0))
        soon = report in _written and time.monotonic() - last < cost / SHARE
        if not done or (soon and len(done) < len(runs)):
            return report if report.is_file() else None
        began = time.process_time()
        partial_page(study, runs, done, folders, output).write(report)
        _written[report] = (time.monotonic(), time.process_time() - began)
    except Exception as error:
        _log.warning("%s: no report of the runs so far (%s)", report, error)
        return None
    return report


def partial_page(
    study: StudyConfig,
    runs: Sequence[Run],
    done: Sequence[Run],
    folders: dict[str, Path],
    output: Path,
) -> page.Page:
    """The page of the runs that are `done`, of all `runs`."""
    table = _table_of(study, done, folders)
    fit = _quick_fit(study, table)
    target = rung_of(study, study.target.size)
    at = (float(target.n_params), float(whole_batches(study.target.tokens, target)[1]))
    sections = [_so_far(study, runs, done, folders, fit, at)]
    sections += [
        recall_section(study, table, domain, task, foreseen(study, domain, output / TOKENIZER))
        for domain, task in knowledge(study, table)
    ]
    sections.append(losses_section(table, fit))
    sections.append(runs_section(runs, folders, table, output))
    return page.Page(
        title=f"Study {study.name}, so far",
        summary=f"{of_what(study)} of {', '.join(study.domains)}, for a target of "
        f"{size_label(at[0])} parameters and {at[1]:,.0f} tokens.",
        sections=sections,
        progress=(len(done), len(runs)) if len(done) < len(runs) else None,
    )


def _table_of(study: StudyConfig, done: Sequence[Run], folders: dict[str, Path]) -> RunTable:
    """The losses and scores of the runs that are done, as far as there is time to read them.

    What one page has no time for is on the next: scores of a run are checked against its
    predictions, which a study of thousands should not wait for.
    """
    began = time.monotonic()
    parts: list[RunTable] = []
    for run in done:
        folder = folders[run.run_id]
        if folder not in _read and (not parts or time.monotonic() - began < READING):
            _read[folder] = collect([run], folders, list(study.domains))
        if folder in _read:
            parts.append(_read[folder])
    losses = pd.concat([part.losses for part in parts], ignore_index=True)
    scores = pd.concat([part.scores for part in parts], ignore_index=True)
    return RunTable(losses, scores, source="study")


def _quick_fit(study: StudyConfig, table: RunTable) -> laws.Fit | None:
    """The best of the study's quick laws that these runs can carry; None where none can."""
    design = table.design()
    for name in (name for name in QUICK if name in study.laws):
        try:
            resolve(name).check(design)
            return laws.fit(name, table)
        except MixlawError:
            continue
    return None


def _so_far(
    study: StudyConfig,
    runs: Sequence[Run],
    done: Sequence[Run],
    folders: dict[str, Path],
    fit: laws.Fit | None,
    at: tuple[float, float],
) -> page.Section:
    """What is missing by size, and the mixture that a quick law would propose already."""
    finished = {run.run_id for run in done}
    rows = [
        {
            "size": run.rung.name,
            "n_params": run.rung.n_params,
            "finished": run.run_id in finished,
            "failed": run.run_id not in finished and (folders[run.run_id] / FAILED).is_file(),
        }
        for run in runs
    ]
    by_size = pd.DataFrame(rows).groupby(["n_params", "size"])
    counts = by_size.agg(
        planned=("finished", "size"), finished=("finished", "sum"), failed=("failed", "sum")
    ).reset_index()
    counts["missing"] = counts["planned"] - counts["finished"] - counts["failed"]
    frame = counts.set_index("size").drop(columns="n_params").astype(int).astype(object)
    blocks: list[page.Block] = [page.table(frame, "Runs of each size", label="size")]
    said = "There are too few runs yet for any of the study's laws."
    if fit is not None:
        said = _proposal(study, fit, at)
    return page.Section("So far", said, blocks)


def _proposal(study: StudyConfig, fit: laws.Fit, at: tuple[float, float]) -> str:
    try:
        best = advice.optimum(fit, *at, starts=STARTS, **study.target.limits)
    except MixlawError as error:
        return f"No mixture can be proposed yet: {error}"
    mixture = ", ".join(f"{name} {ratio:.2f}" for name, ratio in best.mixture(2).items())
    return (
        f"From the runs so far **{fit.law.label}** would propose: {mixture}. That is a first look, "
        "not an answer: no law was compared with another, and no interval was computed."
    )
