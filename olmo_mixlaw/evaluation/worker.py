"""One of the other processes of `--processes N`, told on its standard input what to score."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.evaluation import ranks
from olmo_mixlaw.evaluation.run import evaluate


def main() -> None:
    """Score this process's share; what goes wrong is its last line on standard error."""
    order = json.load(sys.stdin)
    folder = Path(order["folder"])
    (folder / f"ready-{order['rank']}").touch()
    try:
        group = ranks.meet(order["rank"], order["size"], folder / "meeting")
        evaluate(**json.loads(order["call"]), ranks=group)
    except MixlawError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
