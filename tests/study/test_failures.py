"""Why a run ended is told from what it said, what carried it out knows, and its exit code."""

import errno

import pytest
from small_disk import in_small_disk

from olmo_mixlaw.errors import ConfigError, NonFiniteLossError, StoppedError
from olmo_mixlaw.study.executor import Ended
from olmo_mixlaw.study.failures import (
    ERROR,
    KINDS,
    LAST_LINES,
    BusyError,
    Failure,
    is_full,
    judge,
    kind_of,
    leave_word,
    put_aside,
    put_aside_before,
    take_back,
)


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


def caused(error, cause):
    try:
        raise error from cause
    except Exception as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("x"), "refused"),
        (NonFiniteLossError("x"), "diverged"),
        (StoppedError("x", 15), "stopped"),
        (BusyError("x"), "busy"),
        (OSError(errno.EIO, "x"), "io"),
        (OSError(errno.ENOSPC, "x"), "disk"),
        (OSError(errno.EDQUOT, "x"), "disk"),
        (caused(RuntimeError("torch: write failed"), OSError(errno.ENOSPC, "x")), "disk"),
        (OutOfMemoryError("CUDA out of memory"), "memory"),
        (MemoryError(), "memory"),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "memory"),
        (RuntimeError("x"), "defect"),
        (KeyError("x"), "defect"),
    ],
)
def test_the_kind_of_an_error(error, kind):
    assert kind_of(error) == kind
    assert kind in KINDS


def test_a_result_is_no_failure_whatever_else_is_there(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    leave_word(tmp_path, "refused", "x")
    assert judge(tmp_path, Ended("r", -9, "timeout")) is None


@pytest.mark.parametrize(
    ("word", "ended", "kind", "reason"),
    [
        (("refused", "f.yaml: key: wrong\n"), Ended("r", 1), "refused", "f.yaml: key: wrong"),
        (
            ("defect", "Traceback\n  line\nKeyError: 'x'\n"),
            Ended("r", 1),
            "defect",
            "KeyError: 'x'",
        ),
        (("refused", "wrong"), Ended("r", None, "timeout"), "refused", "wrong"),
        (("stopped", "a signal"), Ended("r", None, "timeout"), "timeout", "its time ran out"),
        (("stopped", "a signal"), Ended("r", 1), "stopped", "a signal"),
        (None, Ended("r", None, "node"), "node", "its node was lost"),
        (None, Ended("r", None, "node", "job 7"), "node", "its node was lost (job 7)"),
        (None, Ended("r", -15), "killed", "it was killed (SIGTERM)"),
        (None, Ended("r", -9), "killed", "it was killed (SIGKILL, perhaps for want of memory)"),
        (None, Ended("r", 3), "crash", "it ended without a result (exit code 3)"),
        (None, Ended("r"), "crash", "it ended without a result"),
        (("no kind of ours", "x"), Ended("r", 1), "defect", "x"),
    ],
)
def test_the_judgement(word, ended, kind, reason, tmp_path):
    if word:
        leave_word(tmp_path, *word)
    failure = judge(tmp_path, ended, 2)
    assert (failure.kind, failure.reason, failure.attempts) == (kind, reason, 2)
    assert not (tmp_path / ERROR).exists()


def test_a_damaged_word_is_as_good_as_none(tmp_path):
    (tmp_path / ERROR).write_text('{"kind": 3')
    assert judge(tmp_path, Ended("r", 1)).kind == "crash"


def test_the_first_of_several_processes_is_believed(tmp_path):
    leave_word(tmp_path, "memory", "out of memory")
    leave_word(tmp_path, "stopped", "the other one is gone")
    assert judge(tmp_path, Ended("r", 1)).reason == "out of memory"


def test_the_last_lines_of_the_log_are_kept(tmp_path):
    (tmp_path / "log.txt").write_text("".join(f"line {i}\n" for i in range(5000)))
    kept = judge(tmp_path, Ended("r", -9)).last_lines
    assert kept == tuple(f"line {i}" for i in range(5000 - LAST_LINES, 5000))


def test_what_is_put_aside_comes_back_as_it_was_until_the_configuration_changes(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    failure = Failure("r", "refused", "why", ("one", "two"), 2)
    put_aside(tmp_path, failure)
    assert put_aside_before(tmp_path) == failure
    (tmp_path / "config.yaml").write_text("a: 2\n")
    assert put_aside_before(tmp_path) is None
    take_back(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": 3}', "\0"])
def test_a_damaged_record_is_none(text, tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    (tmp_path / "failed.json").write_text(text)
    assert put_aside_before(tmp_path) is None


def test_a_disk_that_is_full_is_seen(tmp_path):
    assert not is_full(tmp_path)
    code = (
        "import sys; from pathlib import Path; from olmo_mixlaw.study.executor import Ended\n"
        "from olmo_mixlaw.study.failures import judge\n"
        f"print(judge(Path({str(tmp_path)!r}), Ended('r', 1)).kind)"
    )
    said = in_small_disk(tmp_path, "512k", f"head -c 1M /dev/zero > {tmp_path}/f; ", code)
    assert said.stdout.split() == ["disk"], said.stderr
