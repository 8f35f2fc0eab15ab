"""The ladder's own files become a table of tasks; what they don't say is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest

from olmo_mixlaw.advice.ladder_csv import is_ladder, read_ladder
from olmo_mixlaw.errors import ConfigError, DataError

COLUMNS = {
    "_step": [0, 10, 20],
    "eval/c4_en-validation/CrossEntropyLoss": [9.0, 5.0, 4.0],
    "eval/downstream_bpb/piqa_val_rc_5shot_bpb": [2.0, 1.5, 1.25],
    "eval/downstream/piqa_val_rc_5shot_len_norm": [0.5, 0.55, 0.6],
    "eval/downstream/piqa_val_rc_5shot_acc": [0.5, 0.51, 0.52],
    "eval/downstream_bpb/boolq_val_rc_5shot_bpb_bpb": [3.0, 2.5, 2.0],
    "eval/downstream/boolq_val_rc_5shot_acc": [0.4, 0.45, 0.5],
    "eval/downstream/boolq_val_rc_5shot_len_norm": [0.1, 0.1, 0.1],
    "eval/downstream_bpb/sciq_rc_bpb": [1.0, 1.0, 1.0],
    "throughput/total_tokens": [0.0, 1e6, 2e6],
}


def write(
    folder: Path,
    name: str = "190M-1xC.csv",
    changes: Mapping[str, Sequence[float | str | None]] | None = None,
) -> Path:
    folder.mkdir(exist_ok=True)
    pd.DataFrame({**COLUMNS, **(changes or {})}).to_csv(folder / name, index=False)
    return folder / name


def test_a_run_is_read_with_the_ladders_own_size(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert is_ladder(pd.read_csv(path))
    frame = read_ladder([path])
    assert set(frame["run_id"]) == {"190M-1xC"}
    assert set(frame["N"]) == {190354176}
    piqa, boolq = (frame[frame["task"] == f"{name}_val_5shot"] for name in ("piqa", "boolq"))
    # The checkpoint before training is none, and sciq has no accuracy.
    assert piqa[["D", "bpb", "accuracy"]].to_numpy().tolist() == [
        [1e6, 1.5, 0.55],
        [2e6, 1.25, 0.6],
    ]
    assert list(boolq["accuracy"]) == [0.45, 0.5]
    assert len(frame) == 4


def test_a_size_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "tiny-2xC.csv.gz")
    with pytest.raises(
        ConfigError, match=r"tiny-2xC\.csv\.gz: doesn't say .* --size tiny=190354176"
    ):
        read_ladder([path])
    assert set(read_ladder([path], {"tiny": 5e6})["N"]) == {5e6}
    assert set(read_ladder([write(tmp_path)], {"190M": 7.0})["N"]) == {7.0}


def test_a_checkpoint_without_a_task_is_left_out_and_half_a_task_refused(tmp_path: Path) -> None:
    loss = "eval/downstream_bpb/piqa_val_rc_5shot_bpb"
    accuracy = "eval/downstream/piqa_val_rc_5shot_len_norm"
    path = write(tmp_path, changes={loss: [2.0, None, 1.25], accuracy: [0.5, None, 0.6]})
    assert len(read_ladder([path])) == 3
    path = write(tmp_path, changes={loss: [2.0, 1.5, None]})
    with pytest.raises(DataError, match=r"190M-1xC\.csv: line 4, column 'eval/down.*: is missing"):
        read_ladder([path])
    path = write(tmp_path, changes={accuracy: ["0.5", "half", "0.6"]})
    with pytest.raises(DataError, match=r"line 3, column .*: 'half' is not a number"):
        read_ladder([path])


def test_tasks_that_some_files_lack_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {
        "eval/downstream_bpb/copa_rc_bpb": [1.0, 1.0, 1.0],
        "eval/downstream/copa_rc_acc": [0.5, 0.5, 0.6],
    }
    frame = read_ladder([write(tmp_path), write(tmp_path, "370M-1xC.csv", more)])
    assert set(frame["task"]) == {"piqa_val_5shot", "boolq_val_5shot"}
    assert "left out, not in every file: copa_rc" in capsys.readouterr().err


def test_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "190M.csv"
    pd.DataFrame({"a": [1]}).to_csv(path, index=False)
    with pytest.raises(DataError, match="isn't a run of the ladder"):
        read_ladder([path])
