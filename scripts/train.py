"""Train one model as `olmo-mixlaw train` does, also under torchrun.

python scripts/train.py CONFIG [--key.sub=value ...]
torchrun --nproc-per-node=8 scripts/train.py CONFIG
"""

import sys

from olmo_mixlaw.cli.app import run
from olmo_mixlaw.cli.train import train

if __name__ == "__main__":
    sys.exit(run(train, prog_name="train.py"))
