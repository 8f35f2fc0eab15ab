"""Fit a ladder of small models and predict larger ones: `python scripts/fit_ladder.py`.

Where no table is named, the OLMo ladder's is read.
"""

from __future__ import annotations

import sys

from olmo_mixlaw.cli.fit_ladder import main

if __name__ == "__main__":
    sys.exit(main())
