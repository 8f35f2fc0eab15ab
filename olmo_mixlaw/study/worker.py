"""One run of a study, from configuration to scores, in a process of its own.

Every step leaves its result on disk under a final name, so that a run that was killed goes
on from its last checkpoint, and one that is finished is never done again.
"""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from olmo_mixlaw.atomic import open_lock, write_text
from olmo_mixlaw.errors import MixlawError

DONE = "run.json"
CHECKPOINTS = "checkpoints"
LOG = "log.txt"
LOCK_WAIT = 30.0  # seconds that a run waits for an orphan of a killed study to end


def main(folder: str, evaluation: dict[str, Any]) -> None:
    """Train and score the run in `folder`; what is printed goes to its log.

    A failure is left in `error.txt` and as exit code 1.
    """
    path = Path(folder)
    _die_with_study()
    _log_to(path / LOG)
    try:
        with _locked(path / ".lock"):
            execute(path, evaluation)
    except MixlawError as error:
        write_text(path / "error.txt", f"{error}\n")
        sys.exit(1)
    except Exception:
        write_text(path / "error.txt", traceback.format_exc())
        sys.exit(1)


def execute(folder: Path, evaluation: dict[str, Any]) -> None:
    """Train `folder/config.yaml` and score the result into `folder/eval`."""
    import torch

    from olmo_mixlaw.evaluation import evaluate
    from olmo_mixlaw.study.trainers import train_run

    torch.set_num_threads(1)
    started = time.monotonic()
    checkpoint, tokenizer = train_run(folder / "config.yaml")
    trained = time.monotonic()
    evaluate(
        checkpoint,
        evaluation["tasks"],
        folder / "eval",
        truncate=evaluation["truncate"],
        tokenizer=tokenizer,
    )
    seconds = {"train": trained - started, "evaluate": time.monotonic() - trained}
    write_text(folder / DONE, json.dumps({"seconds": seconds}, indent=2) + "\n")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` for this process; waits for the orphan of a killed study to let go."""
    with os.fdopen(open_lock(path), "w") as file:
        deadline = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise MixlawError(f"{path.parent}: another process works here") from None
                time.sleep(0.2)
        yield


def _die_with_study() -> None:
    """End this process as soon as the study's is gone, however that ended.

    The study is not the parent of this process: the fork server is, and it lives on as long as
    a process that it forked. What tells is the pipe that the study's process holds open.
    """
    study = multiprocessing.parent_process()
    if study is None:  # a job of a cluster, which outlives the study
        return

    def watch() -> None:
        study.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _log_to(path: Path) -> None:
    """Send standard output and error of this process, C code included, to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
