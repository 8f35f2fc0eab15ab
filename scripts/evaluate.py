"""Score a model on tasks and write the files that OLMES writes.

python scripts/evaluate.py runs/.../step100-unsharded -t bio_recall -t domain_loss -o scores
"""

import sys

from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.evaluate import evaluate

if __name__ == "__main__":
    sys.exit(run(evaluate, prog_name="evaluate.py"))
