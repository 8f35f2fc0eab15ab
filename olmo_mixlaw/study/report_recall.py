"""The facts' part of the report: where they are learned, and where they are expected to be."""

from __future__ import annotations

from collections.abc import Sequence

from olmo_mixlaw.models.ladder import short as size_label
from olmo_mixlaw.report import page, panels
from olmo_mixlaw.report.panels import Band, Foreseen
from olmo_mixlaw.report.style import looks
from olmo_mixlaw.runs import RunTable
from olmo_mixlaw.study.analysis import guessing_floor, learning_ratio, recall_by_size
from olmo_mixlaw.study.foreseen import foreseen_text
from olmo_mixlaw.study.settings import StudyConfig

MOST_COLUMNS = 24  # of a table of numbers; more of them are in that of all runs
METRICS = ("exact_match", "answer_bits")


def recall_section(
    study: StudyConfig,
    table: RunTable,
    domain: str,
    task: str,
    expected: Sequence[Foreseen] = (),
    proposed: tuple[float, Band | None] | None = None,
) -> page.Section:
    """Recall and missing bits against the domain's ratio, beside where it was `expected`.

    With the ratio `proposed`, also the band of what the target is expected to know.
    """
    floor = guessing_floor(study, domain)
    by_size = recall_by_size(table, domain, task)
    learned = "; ".join(
        f"{size_label(size)} parameters: {learning_ratio(row)}" for size, row in by_size.iterrows()
    )
    scored = set(table.scores.loc[table.scores["task"] == task, "metric"])
    drawn = [
        (
            panels.recall_against_ratio(
                table, domain, task, metric, floor, expected if metric == METRICS[0] else ()
            ),
            f"{'Recall' if metric == METRICS[0] else 'Missing bits'} of {task} by ratio",
            f"One half is passed at a ratio of: {learned}." if metric == METRICS[0] else "",
        )
        for metric in METRICS
        if metric in scored
    ]
    ratio, band = proposed or (0.0, None)
    caption = (
        "Points are runs with their standard error, bars stand for many runs (median and nine "
        "tenths); the dashed line is guessing."
    )
    if expected:
        caption += f" {foreseen_text(expected)}"
    if band is not None:
        size = expected[-1].size
        drawn.append(
            (
                panels.expected_recall(band, domain, size, ratio),
                f"Expected recall at the target, {size_label(size)} parameters",
                "The part of the facts that is expected to be known, by ratio, with its 90 %.",
            )
        )
        caption += " Last: what the target is expected to recall (90 %), and the proposed ratio."
    keys = {size_label(size): look for size, look in looks(list(by_size.index)).items()}
    numbers = by_size.set_axis([size_label(size) for size in by_size.index]).set_axis(
        [f"{ratio:g}" for ratio in by_size.columns], axis=1
    )
    title = f"Recall of {task}: sizes by ratios of {domain}"
    few = len(numbers.columns) <= MOST_COLUMNS
    data = page.table(numbers.astype(float), title, label="parameters") if few else None
    return page.Section(
        f"Where {domain} is learnt",
        f"The share of the facts of **{domain}** that a model completes exactly, against their "
        f"share of its training tokens. Recall passes one half at a ratio of: {learned}.",
        [page.chart(drawn, caption, looks=keys, data=data)],
    )
