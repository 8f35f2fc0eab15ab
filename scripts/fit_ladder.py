"""Fit a ladder of small models and predict larger ones: `python scripts/fit_ladder.py`.

Where no table is named, the OLMo ladder's is read, which only a checkout has.
"""

from __future__ import annotations

import sys
from pathlib import Path

from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.fit_ladder import PublishedLadder, fit_ladder

DATA = Path(__file__).resolve().parent.parent / "benchmarks" / "data"
OLMO = PublishedLadder(DATA / "p6_olmo_ladder.csv.gz", DATA / "ladder_published.csv")


def main(arguments: list[str] | None = None) -> int:
    return run(fit_ladder, arguments, prog_name="fit_ladder.py", obj=OLMO)


if __name__ == "__main__":
    sys.exit(main())
