"""Kill a study's whole process group at random moments, many times, and look at what is left.

A study of three runs of a few seconds is started, killed with SIGKILL a random while after a random
moment, and started again, until it ends by itself; then its table must be that of an undisturbed
study, to the byte. Studies follow each other until there were so many kills.

    python benchmarks/kills.py --kills 50
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from record import save

STUDY = """
name: killed
output: {output}
ladder: micro-dense
sizes: [w16]
tokens: [40_000]
domains:
  wiki: mixlaw:text?corpus=wikipedia
  bio: "mixlaw:biography?n=8&seed=1&templates=1&pools=middle:0,birth_date:12,employer:4"
mixtures:
  low: {{wiki: 0.8, bio: 0.2}}
  mid: {{wiki: 0.5, bio: 0.5}}
  high: {{wiki: 0.3, bio: 0.7}}
laws: [no_mixture]
tokenizer: {{vocab_size: 512, characters: 200_000}}
evaluation: {{tasks: [bio_recall], heldout_tokens: 4096}}
target: {{size: w16, tokens: 40_000}}
checkpoint_every: 3
workers: 2
"""
LONGEST = 3.0  # seconds, at random, from what a kill waits for until it comes
# What a kill waits for after a start, drawn at random: nothing, or something new on disk.
MOMENTS = {
    "a start": "",
    "a step": "runs/*/checkpoints/metrics.csv",
    "a checkpoint": "runs/*/checkpoints/step*",
    "a finished run": "runs/*/run.json",
    "the table": "table/*",
}
LIMIT = 900  # seconds that a study left alone may take


def start(file: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "olmo_mixlaw", "study", "run", str(file)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def new_study(folder: Path) -> Path:
    folder.mkdir()
    file = folder / "study.yaml"
    file.write_text(STUDY.format(output=folder / "out"))
    return file


def stamp_of(output: Path) -> dict[str, str]:
    """The hash of every file of the final table."""
    files = sorted((output / "table").iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def stage(output: Path) -> str:
    """What a study was at, by what is on disk."""
    runs = list(output.glob("runs/*/config.yaml"))
    if not runs:
        return "before the runs"
    done = len(list(output.glob("runs/*/run.json")))
    begun = len(list(output.glob("runs/*/checkpoints/metrics.csv")))
    if done == len(runs):
        return "after the runs"
    return "training or scoring" if begun > done else "between runs"


def until_it_ends(file: Path, most: int, rng: random.Random) -> list[str]:
    """Kill the study at most `most` times; the stages at which it was. It has ended after that."""
    stages: list[str] = []
    output = file.parent / "out"
    while True:
        moment = rng.choice(sorted(MOMENTS))
        began = time.time()
        process = start(file)
        if len(stages) < most:
            wait_for(process, output, MOMENTS[moment], began)
            time.sleep(rng.uniform(0, LONGEST))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                stages.append(stage(output))
                print(f"  killed after {moment}, {stages[-1]}", flush=True)
                continue
        said, _ = process.communicate(timeout=LIMIT)
        if process.returncode:
            raise SystemExit(f"the study failed:\n{said}")
        return stages


def wait_for(process: subprocess.Popen[str], output: Path, pattern: str, began: float) -> None:
    """Until a file of that pattern is newer than `began`, or the study has ended."""
    while pattern and process.poll() is None:
        with suppress(FileNotFoundError):  # a temporary one
            if any(path.lstat().st_mtime > began for path in output.glob(pattern)):
                return
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop killing then")
    parser.add_argument("--no-save", action="store_true")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        began = time.monotonic()
        reference = new_study(folder / "undisturbed")
        until_it_ends(reference, 0, rng)
        undisturbed = time.monotonic() - began
        wanted = stamp_of(folder / "undisturbed" / "out")
        studies: list[dict[str, object]] = []
        kills: list[str] = []
        while len(kills) < given.kills and time.monotonic() - began < given.seconds:
            file = new_study(folder / f"study{len(studies)}")
            stages = until_it_ends(file, given.kills - len(kills), rng)
            kills += stages
            same = stamp_of(file.parent / "out") == wanted
            studies.append({"kills": len(stages), "identical": same})
            print(f"study {len(studies)}: {len(stages)} kills, table identical: {same}", flush=True)
    counted = {stage: kills.count(stage) for stage in sorted(set(kills))}
    for what, count in counted.items():
        print(f"{count:4} killed {what}")
    identical = sum(bool(study["identical"]) for study in studies)
    print(f"{len(kills)} kills, {identical} of {len(studies)} tables identical to the byte")
    if not given.no_save:
        figures = {"kills": len(kills), "stages": counted, "studies": studies}
        save("kills", figures, seed=given.seed, undisturbed_seconds=round(undisturbed, 1))
    if identical < len(studies):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
