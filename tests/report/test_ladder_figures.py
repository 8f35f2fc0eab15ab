"""The figures of a ladder hold its runs, its curves and what is known of larger models."""

import numpy as np
import pandas as pd

from olmo_mixlaw.report import ladder_figures, law_figures

TASKS = ["quiz", "coding", "maths", "reading", "logic"]


def accuracy(n_params, n_tokens):
    """The same rise with compute for every task."""
    level = 1 - (np.asarray(n_params) * np.asarray(n_tokens) / 1e16) ** -0.05
    return np.tile(level[:, None], (1, len(TASKS)))


def test_every_task_has_a_panel_with_runs_curves_and_known_scores(tmp_path):
    sizes, budgets = [1e8, 1e9], [1e9, 1e10, 1e11]
    measured = pd.DataFrame(
        [
            {"n_params": n, "n_tokens": d, "task": task, "accuracy": accuracy([n], [d])[0, 0]}
            for task in TASKS
            for n in sizes
            for d in budgets
        ]
    )
    told = {"predicted": 0.6, "low": 0.5, "high": 0.7}
    result = pd.DataFrame(
        [
            {"model": model, "task": task, **told, "actual": 0.65 if task == "quiz" else np.nan}
            for model in ("7B", "13B")
            for task in TASKS
        ]
    )
    figure = ladder_figures.figure_tasks(measured, accuracy, result, {"7B": 4e12, "13B": 5e12})
    assert [axis.get_title(loc="left") for axis in figure.axes[: len(TASKS)]] == TASKS
    assert all(not axis.axison for axis in figure.axes[len(TASKS) :])
    known, unknown = figure.axes[0], figure.axes[1]
    # A row of points and a curve a size, a predicted cross a model, and what is known of it.
    assert len(known.lines) == 2 * 2 + 2 + 2
    assert len(unknown.lines) == 2 * 2 + 2
    assert known.get_xlim()[1] > 5e12
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(labels) == {"0.1B", "1B", "7B predicted", "7B actual", "13B predicted", "13B actual"}
    assert law_figures.save(figure, tmp_path / "new" / "ladder.png").stat().st_size > 10_000


def test_losses_are_drawn_against_what_is_known():
    result = pd.DataFrame(
        {
            "task": ["web", "code", "web"],
            "predicted": [3.0, 2.0, 2.9],
            "low": [2.9, 1.9, 2.8],
            "high": [3.1, 2.1, 3.0],
            "actual": [3.05, 2.02, np.nan],
        }
    )
    result.attrs["unit"] = "nats"
    axis = ladder_figures.figure_losses(result).axes[0]
    assert axis.get_xlabel() == "actual loss (nats)"
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["web", "code"]
    unknown = ladder_figures.figure_losses(result.assign(actual=np.nan)).axes[0]
    assert unknown.get_xlabel() == "predicted loss (nats)"
