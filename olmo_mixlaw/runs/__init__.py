"""The table of runs: one place where training and evaluation meet the laws.

`RunTable` holds losses and scores, checked once; its `design()` is what a law reads.
`importers` reads the tables of others.
"""

from olmo_mixlaw.runs.frames import read_frame
from olmo_mixlaw.runs.table import ALIASES, WEIGHT, Design, RunTable

__all__ = ["ALIASES", "WEIGHT", "Design", "RunTable", "read_frame"]
