"""5,000 damaged inputs: each is accepted or refused in one line, none hangs, none is a traceback.

What is accepted is written to `$FUZZ_ACCEPTED`, where that names a file, to be looked at;
`ACCEPTED.md` says what was found there. `$FUZZ_SEED` draws other inputs, `$FUZZ_INPUTS` more or
fewer.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from olmo_mixlaw.cli.app import mistake

pytestmark = pytest.mark.slow

INPUTS = int(os.environ.get("FUZZ_INPUTS", "5000"))
SECONDS = 30  # beyond which an input counts as one that hangs
MEMORY = 6 * 2**30  # more than any of these may take
LONGEST = 4000  # letters of a message


class Hung(BaseException):
    """No input may take so long; nothing of ours catches this."""


@contextmanager
def limited():
    def alarm(*_):
        raise Hung

    before = signal.signal(signal.SIGALRM, alarm)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(read, folder):
    """Nothing for an accepted input, its line for a refused one; raises what is neither."""
    try:
        with limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(folder)
    except MemoryError:
        raise
    except Exception as error:
        line = mistake(error)
        if line is None:
            raise
        assert "\n" not in line
        assert len(line) < LONGEST, line[:200]
        return line
    return None


NAMES = (
    "study",
    "override",
    "ladder",
    "mixture",
    "train",
    "recipe",
    "wide",
    "wide_csv",
    "suite",
    "losses",
    "scores",
    "ratios",
    "metrics",
    "fit",
    "outputs",
    "harness",
    "uri",
    "run_folder",
)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs_are_accepted_or_refused_in_one_line(name, tmp_path, monkeypatch, capfd):
    from subjects import SUBJECTS, prepare  # makes a fit: not while tests are collected

    subject = next(subject for subject in SUBJECTS if subject.name == name)
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    bad, accepted = [], []
    for i in range(INPUTS * subject.share // 100):
        rng = random.Random(f"{os.environ.get('FUZZ_SEED', '0')}-{subject.name}-{i}")
        said = subject.make(rng, tmp_path)
        try:
            line = outcome(subject.read, tmp_path)
        except (Hung, Exception) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            bad.append(f"{i} {said}: {type(error).__name__}: {str(error)[:120]} at {where}")
            continue
        if line is None:
            accepted.append(f"{subject.name} {i}: {said}")
    if os.environ.get("FUZZ_ACCEPTED"):
        with open(os.environ["FUZZ_ACCEPTED"], "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in accepted)
    capfd.readouterr()
    assert accepted, "nothing that was damaged is accepted: is the good input good?"
    assert not bad, f"{len(bad)} of them:\n" + "\n".join(bad[:40])


def test_every_subject_has_its_share():
    from subjects import SUBJECTS

    assert tuple(subject.name for subject in SUBJECTS) == NAMES
    assert sum(subject.share for subject in SUBJECTS) >= 100
