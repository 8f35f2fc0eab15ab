"""metrics.csv and evals.csv: rows by step that a killed and resumed run leaves as if undisturbed.

Rows hold nothing that depends on time or machine. On a resume the rows after the resumed step
are dropped, because they will come again.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from olmo_mixlaw.atomic import open_atomic
from olmo_mixlaw.errors import DataError

log = logging.getLogger(__name__)

METRICS = "metrics.csv"
EVALS = "evals.csv"
EVAL_COLUMNS = ("step", "metric", "value")
# Evaluators of ours, whose means by domain it holds: loss on held-out text, answers word for word.
KINDS = ("heldout", "exact_match")

_MEND = "mend it, or move it away"


class Record:
    """A CSV file that grows by rows; the first column is `step`."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self._file: IO[str] | None = None

    def open(self, after_step: int) -> None:
        """Keep the rows up to `after_step` of an earlier start, and append from there.

        Rows of other columns, of a mixture before `allow_change`, are kept in a file beside it.
        Raises `DataError` for a file that is none of ours.
        """
        self.close()
        kept = [row for row in self.rows() if int(row[0]) <= after_step]
        for row in kept:
            if len(row) != (wanted := len(self.columns)):
                raise DataError(
                    f"{self.path}: step {row[0]}: {len(row)} columns of {wanted}; {_MEND}"
                )
        if not kept and after_step and self.path.is_file() and self.path.stat().st_size:
            self._set_aside(after_step)
        with open_atomic(self.path, newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(kept)
        self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115

    def rows(self) -> list[list[str]]:
        """The complete rows on disk, if they are of these columns. Raises `DataError`."""
        if not self.path.is_file():
            return []
        try:
            text = self.path.read_text(encoding="utf-8")
            # A row without its end was being written when the process was killed.
            table = list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path}: is no table of a run ({error}); {_MEND}") from None
        if not table or table[0] != self.columns:
            return []
        for line, row in enumerate(table[1:], start=2):
            step = row[0] if row else ""
            if not step.isdecimal():
                raise DataError(
                    f"{self.path}: line {line}: step: {step!r} is no whole number; {_MEND}"
                )
        return table[1:]

    def _set_aside(self, after_step: int) -> None:
        aside = self.path.with_name(f"{self.path.stem}.until-step{after_step}{self.path.suffix}")
        if not aside.exists():
            os.replace(self.path, aside)
            log.warning("%s: has other columns than this run; it is now %s", self.path, aside.name)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; a column that `row` lacks stays empty. Floats keep all their digits."""
        assert self._file is not None
        csv.writer(self._file, lineterminator="\n").writerow(
            [_cell(row.get(column)) for column in self.columns]
        )
        self._file.flush()

    def sync(self) -> None:
        """Make sure that the rows outlive a power failure, as a checkpoint does."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)
