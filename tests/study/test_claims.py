"""Processes share the runs of a folder: each run is held by one at a time, and none is lost."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from olmo_mixlaw.study import claims as module
from olmo_mixlaw.study.claims import Claims, Holder, holder_of, is_held, myself


def far_away(token="t"):
    """A holder on a machine that can't be seen from here."""
    return Holder("far", 7, "another boot", "1", token)


def test_a_run_is_held_by_one(tmp_path):
    mine, theirs = Claims(), Claims()
    assert mine.take(tmp_path)
    assert mine.take(tmp_path)
    assert not theirs.take(tmp_path)
    assert is_held(tmp_path)
    assert str(holder_of(tmp_path)) == str(mine.holder)


def test_what_is_let_go_is_free(tmp_path):
    mine, theirs = Claims(), Claims()
    mine.take(tmp_path)
    mine.drop(tmp_path)
    assert not is_held(tmp_path)
    assert theirs.take(tmp_path)
    assert not mine.take(tmp_path)
    mine.drop(tmp_path)  # what it no longer has it can't give away
    assert is_held(tmp_path)
    theirs.drop_all()
    assert not is_held(tmp_path)


def test_what_a_dead_process_held_is_taken_over_at_once(tmp_path):
    code = (
        "import sys, pathlib; from olmo_mixlaw.study.claims import Claims; "
        "assert Claims().take(pathlib.Path(sys.argv[1])); import os; os._exit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 1
    assert holder_of(tmp_path) is not None
    assert not is_held(tmp_path)
    assert Claims().take(tmp_path)
    assert len(list(tmp_path.glob(".claim-*"))) == 1


def test_a_number_that_was_given_again_is_another_process(tmp_path):
    here = myself()
    earlier = Holder(here.host, here.pid, here.place, "0", "t")
    assert earlier.is_seen_dead()
    assert not here.is_seen_dead()


def test_a_holder_elsewhere_is_gone_only_when_its_claim_stands_still(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    theirs, mine = Claims(far_away()), Claims(stale=30)
    assert theirs.take(tmp_path)
    for now in (100.0, 120.0, 129.0):  # noqa: B007
        assert not mine.take(tmp_path)
    assert theirs.beat() == []
    os.utime(tmp_path / ".claim-0", (1, 1))  # by a clock that is decades behind
    for now in (131.0, 160.0):  # noqa: B007
        assert not mine.take(tmp_path)
    now = 162.0
    assert mine.take(tmp_path)
    now = 200.0
    assert theirs.beat() == [tmp_path]
    assert mine.beat() == []
    assert not theirs.take(tmp_path)


def test_a_look_at_the_folder_that_is_old_takes_nothing(tmp_path, monkeypatch):
    slow = Claims()
    looks = iter([None])
    real = module._highest
    monkeypatch.setattr(module, "_highest", lambda folder: next(looks, real(folder)))
    first = Claims()
    (tmp_path / ".claim-1").write_text(json.dumps(vars(first.holder)))
    assert not slow.take(tmp_path)  # it saw none, and made number 0
    assert [p.name for p in tmp_path.glob(".claim-*")] == [".claim-1"]


def test_a_claim_that_goes_or_is_written_while_it_is_looked_at_is_not_free(tmp_path, monkeypatch):
    path = tmp_path / ".claim-0"
    path.touch()  # made, and not yet written
    assert not Claims().take(tmp_path)
    real = Path.read_text

    def late(self, **how):
        self.unlink()  # the holder of number 1 has tidied up
        (tmp_path / ".claim-1").write_text(json.dumps(vars(far_away())))
        return real(self, **how)

    monkeypatch.setattr(Path, "read_text", late)
    assert not Claims().take(tmp_path)
    assert [p.name for p in tmp_path.glob(".claim-*")] == [".claim-1"]


def race(folder, start, results):
    claims = Claims()
    start.wait()
    results.put(sum(claims.take(folder / str(i)) for i in range(40)))
    time.sleep(0.2)


def test_many_that_ask_at_once_share_all_and_no_two_have_the_same(tmp_path):
    for i in range(40):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / ".claim-0").write_text(json.dumps({**vars(myself()), "born": "0"}))
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    workers = [context.Process(target=race, args=(tmp_path, start, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    start.set()
    assert sum(results.get(timeout=30) for _ in workers) == 40
    for worker in workers:
        worker.join()


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'{"pid": "x"}', b"\xff"])
def test_a_damaged_claim_names_nobody(tmp_path, text):
    (tmp_path / ".claim-3").write_bytes(text)
    assert holder_of(tmp_path) is None
    assert not is_held(tmp_path)
