"""While a study runs, its page shows what is finished, and never stands in its way."""

import json

import pytest
from invented import table_of

from olmo_mixlaw.study import partial
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.failures import DONE
from olmo_mixlaw.study.plan import plan


@pytest.fixture
def study(study_file, monkeypatch):
    """A study whose runs' losses are invented where they are said to be finished."""
    found = load_study(study_file())
    table = table_of(found)

    def collect(runs, folders, domains):
        kept = table.losses[table.losses["run_id"].isin([run.run_id for run in runs])]
        return type(table)(kept.reset_index(drop=True))

    monkeypatch.setattr(partial, "collect", collect)
    monkeypatch.setattr(partial, "_written", {})
    monkeypatch.setattr(partial, "_read", {})
    return found


def finish(folders, names):
    for name in names:
        folders[name].mkdir(parents=True, exist_ok=True)
        (folders[name] / DONE).write_text(json.dumps({"seconds": {"train": 1, "evaluate": 1}}))


@pytest.fixture
def place(study, tmp_path):
    runs, out = plan(study), tmp_path / "out"
    out.mkdir()
    return runs, {run.run_id: out / "runs" / run.run_id for run in runs}, out


def test_the_first_run_makes_the_first_page(study, place):
    runs, folders, out = place
    assert partial.refresh(study, runs, folders, out) is None  # nothing is known yet
    finish(folders, [runs[0].run_id])
    page = partial.refresh(study, runs, folders, out).read_text()
    assert f"<b>1 of {len(runs)} runs</b>" in page
    assert "too few runs yet" in page
    assert all(run.run_id in page for run in runs)
    assert "reload(" in page


def test_the_last_run_ends_the_waiting(study, place):
    runs, folders, out = place
    finish(folders, folders)
    page = partial.refresh(study, runs, folders, out).read_text()
    assert "would propose" in page
    assert 'class="banner"' not in page
    assert "reload(15)" not in page


def test_failed_runs_are_not_missing(study, place):
    runs, folders, out = place
    finish(folders, [runs[0].run_id])
    folders[runs[1].run_id].mkdir(parents=True)
    (folders[runs[1].run_id] / "failed.json").write_text("{}")
    section = partial.partial_page(study, runs, runs[:1], folders, out).sections[0]
    [table] = section.blocks
    counts = [[cell.text for cell in row] for row in table.rows]
    total = [sum(int(row[i]) for row in counts) for i in range(1, 5)]
    assert table.columns == ("size", "planned", "finished", "failed", "missing")
    assert total == [len(runs), 1, 1, len(runs) - 2]


def test_a_page_is_not_written_again_and_again(study, place, monkeypatch):
    runs, folders, out = place
    finish(folders, [runs[0].run_id])
    made = []
    real = partial.partial_page
    monkeypatch.setattr(partial, "partial_page", lambda *a: (made.append(1), real(*a))[1])
    for _ in range(3):
        assert partial.refresh(study, runs, folders, out) == out / "report.html"
    assert len(made) == 1
    finish(folders, folders)
    partial.refresh(study, runs, folders, out)
    assert len(made) == 2  # the last run is always shown


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("x")])
def test_nothing_that_goes_wrong_reaches_the_study(study, place, monkeypatch, caplog, error):
    def fails(*_):
        raise error

    runs, folders, out = place
    finish(folders, [runs[0].run_id])
    monkeypatch.setattr(partial, "partial_page", fails)
    assert partial.refresh(study, runs, folders, out) is None
    assert "no report of the runs so far" in caplog.text


def test_a_run_is_read_once(study, place, monkeypatch):
    runs, folders, out = place
    finish(folders, [run.run_id for run in runs[:2]])
    read = []
    real = partial.collect
    monkeypatch.setattr(
        partial,
        "collect",
        lambda some, *a: (read.extend(r.run_id for r in some), real(some, *a))[1],
    )
    for _ in range(2):
        partial.partial_page(study, runs, runs[:2], folders, out)
    assert sorted(read) == sorted(run.run_id for run in runs[:2])
