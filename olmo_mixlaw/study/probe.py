"""How fast this machine trains a study's models: twenty steps of the real trainer, measured.

The smallest and the largest size are trained, as many side by side as the study has workers, in a
folder of their own that is thrown away; sizes between lie on the line through them (`estimate`).
What was measured is kept with what it depends on, so a plan asks once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from olmo_mixlaw import __version__
from olmo_mixlaw.atomic import write_text
from olmo_mixlaw.datasets import load_tokenizer, open_dataset, train_tokenizer, write_memmap
from olmo_mixlaw.datasets.memmap import dtype_for
from olmo_mixlaw.datasets.tokens import default_cache
from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.models.ladder import Rung
from olmo_mixlaw.study.execution import work_of
from olmo_mixlaw.study.failures import LOG, last_lines
from olmo_mixlaw.study.plan import Run
from olmo_mixlaw.study.progress import last_step
from olmo_mixlaw.study.resources import Slot, micro_batch, precision_for, processes, slots
from olmo_mixlaw.study.settings import StudyConfig
from olmo_mixlaw.study.trainers import require_trainer, run_config, train_run
from olmo_mixlaw.study.worker import CHECKPOINTS
from olmo_mixlaw.swarm.exported import as_yaml

STEPS, EVERY = 20, 5  # of a probe, and between those that are timed; the first are warm-up
LOOK = 0.005  # seconds between looks at how far it is
LONGEST = 600.0  # seconds, after which a probe is given up
# A probe comes by itself where it should end within so many seconds: what a process takes to begin,
# and its steps on a machine that is slow for a server's core.
SOON, BEGIN, SLOW = 30.0, 8.0, 1e10
KEPT = "probes.json"
TEXT = "mixlaw:biography?n=64&seed=1"
DOCUMENTS = 400  # of the probe's own text, which repeats
CHARACTERS, VOCABULARY = 100_000, 512  # of a tokenizer, where the study trains its own


@dataclasses.dataclass(frozen=True)
class Probe:
    """Seconds a step by size, and the machine that they were measured on."""

    paces: dict[str, float]
    machine: str
    workers: int


def is_soon(runs: list[Run]) -> bool:
    """Whether a probe of these runs should end within half a minute."""
    flops = sum(STEPS * run.rung.step_flops for run in probed(runs))
    return BEGIN + flops / SLOW < SOON


def probed(runs: list[Run]) -> list[Run]:
    """A run of the smallest size and one of the largest, by operations a step."""
    by_size = {run.rung.name: run for run in runs}
    order = sorted(by_size.values(), key=lambda run: run.rung.step_flops)
    return order[:1] if len(order) == 1 else [order[0], order[-1]]


def known(study: StudyConfig, runs: list[Run], where: str) -> Probe | None:
    """What was measured before on this machine for these sizes; None where some is missing."""
    kept, paces = _kept(), {}
    places = slots(study, where) if study.slurm is None else [Slot()]
    for run in probed(runs):
        pace = kept.get(_key(study, run.rung, places))
        if not isinstance(pace, float) or not pace > 0:
            return None
        paces[run.rung.name] = pace
    return Probe(paces, machine(), _side_by_side(study, places))


def probe(
    study: StudyConfig, runs: list[Run], where: str, say: Callable[[str], object] = print
) -> Probe:
    """Measure the smallest and the largest size, and keep what is found.

    Raises `ConfigError` where what trains the runs isn't there, or its steps end with an error.
    """
    require_trainer(study, where)
    if processes(study) > 1:
        raise ConfigError(
            f"{where}: a run is shared by {processes(study)} processes, and a probe measures runs "
            "of one; state the hardware (--hardware)"
        )
    places = slots(study, where) if study.slurm is None else [Slot()]
    chosen = probed(runs)
    names = " and ".join(run.rung.name for run in chosen)
    say(f"measuring {STEPS} steps of {names}, {_side_by_side(study, places)} at once")
    with tempfile.TemporaryDirectory(prefix="olmo-mixlaw-probe-") as folder:
        paces = _measured(study, chosen, Path(folder), places)
    kept = _kept() | {_key(study, run.rung, places): paces[run.rung.name] for run in chosen}
    try:
        write_text(default_cache() / KEPT, json.dumps(kept, indent=1) + "\n")
    except OSError as error:
        say(f"mind: {default_cache() / KEPT}: can't be kept ({error.strerror})")
    return Probe(paces, machine(), _side_by_side(study, places))


def machine() -> str:
    """The processor and how many of it there are, in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return f"{os.cpu_count()} x {model}"


def _measured(
    study: StudyConfig, runs: list[Run], folder: Path, places: list[Slot]
) -> dict[str, float]:
    """Seconds a step of each run's size, the mean over processes that train at once."""
    names, commands = [run.rung.name for run in runs], []
    tokenizer, text = _text(study, runs[0].rung, folder)
    plain = dataclasses.replace(
        study,
        domains={"text": str(text)},
        match_repeats=False,
        source_tokens={},
        cuts={},
        checkpoint_every=STEPS,
    )
    owns = [folder / str(i) for i in range(_side_by_side(study, places))]
    for own in owns:
        configs = []
        for run in runs:
            short = dataclasses.replace(
                run, steps=STEPS, n_tokens=STEPS * run.rung.batch_tokens, ratios={"text": 1.0}
            )
            to = own / run.rung.name
            config = run_config(plain, short, tokenizer, to / CHECKPOINTS, folder / "data")
            config["metrics_interval"] = EVERY
            configs.append(str(write_text(to / "config.yaml", as_yaml(config))))
        commands.append([sys.executable, "-m", "olmo_mixlaw.study.probe", *configs])
    threads = str(work_of(study).threads)
    children = []
    try:
        for own, command, place in zip(owns, commands, places, strict=False):
            environment = {**os.environ, **place.environment, "OMP_NUM_THREADS": threads}
            with open(own / LOG, "wb") as log:
                children.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        paces = _watched(children, {own / name: name for own in owns for name in names})
    finally:
        for child in children:
            child.kill()
            child.wait()
    for name in names:
        if len(paces[name]) < len(owns):
            said = last_lines(owns[0] / LOG, 1)
            raise ConfigError(f"probe of {name}: {said[0] if said else 'it ended without a word'}")
    return {name: sum(found) / len(found) for name, found in paces.items()}


def _watched(children: list[subprocess.Popen], folders: dict[Path, str]) -> dict[str, list[float]]:
    """Seconds a step of every run, by size, that came to its last step."""
    began = time.monotonic()
    first: dict[Path, tuple[int, float]] = {}
    left = set(folders)
    paces: dict[str, list[float]] = {name: [] for name in folders.values()}
    while left and time.monotonic() - began < LONGEST:
        ended = all(child.poll() is not None for child in children)
        for folder in sorted(left):
            step, now = last_step(folder), time.monotonic()
            if step and folder not in first:
                first[folder] = (step, now)
            elif folder in first and step >= STEPS:
                paces[folders[folder]].append((now - first[folder][1]) / (step - first[folder][0]))
                left.remove(folder)
        if ended:
            break
        time.sleep(LOOK)
    return paces


def _text(study: StudyConfig, rung: Rung, folder: Path) -> tuple[Path, Path]:
    """A tokenizer, and a few documents as tokens."""
    dataset, path = open_dataset(TEXT), folder / "tokenizer.json"
    if study.tokenizer.identifier is not None:
        loaded = load_tokenizer(study.tokenizer.identifier, "tokenizer.identifier")
        write_text(path, loaded.to_str(pretty=False))
    else:
        texts = list(dataset.documents(0, DOCUMENTS))
        train_tokenizer(texts, min(study.tokenizer.vocab_size, VOCABULARY), path)
    tokens = folder / "text.npy"
    write_memmap(
        dataset.documents(0, DOCUMENTS),
        load_tokenizer(path),
        tokens,
        eos_token_id=rung.eos_token_id,
        dtype=dtype_for(rung.vocab_size),
    )
    return path, tokens


def _side_by_side(study: StudyConfig, places: list[Slot]) -> int:
    """How many probes run at once: as many as the study's workers find processors for."""
    return max(1, min(len(places), os.cpu_count() or 1))


def _key(study: StudyConfig, rung: Rung, places: list[Slot]) -> str:
    """All that a pace depends on, as a short name."""
    facts: dict[str, Any] = {
        "version": __version__,
        "host": platform.node(),
        "machine": machine(),
        "python": platform.python_version(),
        "trainer": study.trainer,
        "rung": {**dataclasses.asdict(rung), "name": ""},
        "precision": precision_for(study),
        "micro_batch": micro_batch(study, rung),
        "threads": work_of(study).threads,
        "gpus": [place.gpus for place in places],
        "at_once": _side_by_side(study, places),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _kept() -> dict[str, Any]:
    """What is kept of earlier probes; nothing where the file is damaged."""
    try:
        found = json.loads((default_cache() / KEPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def probe_or_none(
    study: StudyConfig, runs: list[Run], where: str, say: Callable[[str], object]
) -> Probe | None:
    """What is known of this machine, or a probe; where none can be made, why not is said."""
    try:
        return known(study, runs, where) or probe(study, runs, where, say)
    except MixlawError as error:
        say(f"mind: no probe: {error}")
        return None


def main(configs: Sequence[str]) -> None:
    """Train each in turn, so that what they import is imported once."""
    for config in configs:
        train_run(Path(config))


if __name__ == "__main__":
    main(sys.argv[1:])
