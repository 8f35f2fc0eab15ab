"""How long `import olmo_mixlaw` and `olmo-mixlaw --help` take: goal under 0.3 s each.

Whole processes, in turn with an empty Python process so that its own start is known.

    python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import record

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import olmo_mixlaw": [sys.executable, "-c", "import olmo_mixlaw"],
    "olmo-mixlaw --help": [sys.executable, "-m", "olmo_mixlaw.cli.app", "--help"],
}
REPEATS = 11


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(REPEATS + 1):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if repeat:  # the first round warms the disk cache
                seconds[name].append(time.perf_counter() - started)
    figures = {
        name: {"median_s": statistics.median(s), "min_s": min(s), "max_s": max(s)}
        for name, s in seconds.items()
    }
    for name, figure in figures.items():
        print(f"{name:22} median {figure['median_s']:.3f} s (max {figure['max_s']:.3f} s)")
    record.save("startup", figures, repeats=REPEATS)


if __name__ == "__main__":
    main()
