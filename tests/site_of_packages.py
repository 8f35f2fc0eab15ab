"""An environment with packages in it, for tests that run commands as users do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MICRO = str(ROOT / "configs" / "train" / "micro.yaml")
PLANNED = """
import json, sys
from olmo_mixlaw import schema
from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.mixture.config import MixtureConfig, build_schedule
from olmo_mixlaw.mixture.plan import Plan
from olmo_mixlaw.mixture.schedule import RunLength

found = []
for section in json.loads(sys.argv[1]):
    try:
        config = schema.from_mapping({"schedule": section}, MixtureConfig, "m.yaml")
        schedule = build_schedule(config, ("bio", "wiki"), "m.yaml: mixture")
        plan = Plan(schedule.pieces(RunLength(1000, 16, 128)), (None, None), ("bio", "wiki"))
        found.append((plan.counts(len(plan)) / len(plan)).tolist())
    except MixlawError as error:
        found.append(str(error))
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Site:
    """An environment in which the packages in `packages` are installed, and its working folder."""

    packages: Path
    folder: Path

    def python(self, *arguments: str, also: Sequence[Path] = ()) -> subprocess.CompletedProcess:
        paths = os.pathsep.join(map(str, [self.packages, *also]))
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": paths,
                "OMP_NUM_THREADS": "1",
                "OLMO_MIXLAW_CACHE": str(self.folder / "cache"),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def mixlaw(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.python("-m", "olmo_mixlaw", *arguments)

    def ok(self, *arguments: str) -> str:
        """What a command that works says."""
        done = self.mixlaw(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def told(self, code: str, *arguments: str, also: Sequence[Path] = ()) -> Any:
        """What a Python program prints as JSON."""
        done = self.python("-c", code, *arguments, also=also)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
