"""What `olmo-mixlaw scores` answers: mixtures, scores, gains, and what is unsure of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from olmo_mixlaw.advice import Optimum
    from olmo_mixlaw.advice.gains import Gains
    from olmo_mixlaw.advice.scores import Scores
    from olmo_mixlaw.advice.verdict import Verdict


def outside(domains: list[str], ratios: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[str]:
    """A line where a mixture (K,) breaks the bounds, so that its scores may be out of reach."""
    parts = [
        f"{name} {h:.3f} (from {least:.3f} to {most:.3f})"
        for name, h, least, most in zip(domains, ratios, low, high, strict=True)
        if not least - 1e-9 <= h <= most + 1e-9
    ]
    return [f"the current mixture is outside the bounds: {', '.join(parts)}"] if parts else []


@dataclass(frozen=True)
class Shown:
    """What was found, as text and as a document; `before` (K,) is the current mixture."""

    found: Scores
    best: Optimum
    before: np.ndarray
    why: str
    gained: Gains
    judged: Verdict
    outside: list[str]

    @property
    def warnings(self) -> list[str]:
        """What to be careful of: the optimum's own, and scores at a size like none held out."""
        from olmo_mixlaw.advice.scores.by_size import SAME_SIZE

        largest = self.found.fit.scene.n_range[1]
        far = self.best.n_params > SAME_SIZE * largest
        notes = [*self.best.warnings, *self.outside]
        if far and self.found.calibration.reach == 0:
            notes.append(
                "of fewer than three sizes none could be held out: how high scores are at "
                f"{self.best.n_params:.3g} parameters is less sure than their intervals say; gains "
                "are surer"
            )
        return notes

    @property
    def untold(self) -> dict[str, str]:
        """The tasks that nobody can predict from this table, and why."""
        return {**self.found.dropped, **self.found.unpredictable}

    def mixtures(self) -> pd.DataFrame:
        best = self.best.mixture()
        rows = zip(self.best.domains, self.before, strict=True)
        return pd.DataFrame(
            [{"domain": name, "current": h, "best": best[name]} for name, h in rows]
        )

    def document(self) -> dict[str, Any]:
        """As `--json` has it: scores and gains are parts of 1."""
        best = self.best
        return {
            "no_answer": best.no_answer or None,
            "n_params": best.n_params,
            "n_active": best.n_active,
            "n_tokens": best.n_tokens,
            "verdicts": [self.judged.document()],
            "current_is": self.why,
            "mixture": best.mixture(),
            "mixtures": self.mixtures(),
            "level": self.gained.level,
            "mean": self.gained.mean,
            "families": self.gained.families,
            "tasks": self.gained.tasks,
            "unpredictable": self.untold,
            "hull_distance": best.hull_distance,
            "warnings": self.warnings,
        }

    def text(self) -> str:
        percent = f"{100 * self.gained.level:.0f} %"
        lines = [f"{self.best.no_answer}\n"] if self.best.no_answer else []
        lines.append(f"current: {self.why}")
        lines.append(self.mixtures().to_string(index=False, float_format="{:.4f}".format))
        lines += ["", f"predicted scores and gains in points, with {percent} intervals"]
        lines.append(_points(self.gained.tasks))
        if len(self.gained.families):
            lines += ["", _points(self.gained.families)]
        lines += ["", self.judged.text(), "", self.found.text()]
        return "\n".join([*lines, *(f"caution: {note}" for note in self.warnings)])


def _points(frame: pd.DataFrame) -> str:
    """A table of gains with its scores in points; a column that says nothing is left out."""
    shown = frame.iloc[:, :2].copy() if "task" in frame else frame[["family"]].copy()
    shown["weight"] = [f"{weight:.3f}" if weight > 0 else "-" for weight in frame["weight"]]
    shown["current"] = [f"{100 * value:.2f}" for value in frame["current"]]
    shown["best"] = [f"{100 * value:.2f}" for value in frame["best"]]
    if "task" in shown:
        shown["best"] = _with_ends(frame, "best", ("best_low", "best_high"), "")
    shown["gain"] = _with_ends(frame, "gain", ("low", "high"), "+")
    if "task" in shown and (shown["family"] == "").all():
        shown = shown.drop(columns="family")
    return shown.to_string(index=False)


def _with_ends(frame: pd.DataFrame, column: str, ends: tuple[str, str], sign: str) -> list[str]:
    rows = (100 * frame[[column, *ends]]).itertuples(index=False)
    return [f"{v:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})" for v, low, high in rows]
