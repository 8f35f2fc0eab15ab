"""Write the tokens of a dataset as OLMo memmaps: `python scripts/make_data.py URI FOLDER ...`.

The same as `olmo-mixlaw data make`; `--help` lists the options.
"""

from __future__ import annotations

import sys

from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.data import make

if __name__ == "__main__":
    sys.exit(run(make, prog_name="make_data.py"))
