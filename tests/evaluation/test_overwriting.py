"""A folder holds the scores of one model: another one's are not written over them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from olmo_mixlaw.errors import DataError
from olmo_mixlaw.evaluation import evaluate

BIO = "mixlaw:biography?n=12&pools=major:6,birth_city:8,university:8,employer:8&templates=2"
TASK = {"task_name": "bio_recall", "limit": 3, "context_kwargs": {"dataset": BIO}}


def test_another_models_files_are_not_overwritten(
    checkpoint: Path, hugging_face: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    evaluate(checkpoint, [TASK], out)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(DataError) as refused:
        evaluate(hugging_face, [TASK], out)
    for said in (str(checkpoint), str(hugging_face), "another --output-dir", str(out)):
        assert said in str(refused.value)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept
    # Nor where only a task's own files are left of a run that was stopped.
    for name in ("metrics.json", "metrics-all.jsonl"):
        (out / name).unlink()
    with pytest.raises(DataError, match=r"task-000-bio_recall-metrics\.json: holds scores of "):
        evaluate(hugging_face, [TASK], out)
    evaluate(checkpoint, [TASK, "domain_loss:documents"], out)  # the same model may go on


def test_a_model_whose_folder_was_moved_is_the_same(checkpoint: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "a" / "run" / "checkpoints", tmp_path / "b" / "run" / "checkpoints"
    shutil.copytree(checkpoint, before / "step7-unsharded")
    evaluate(before / "step7-unsharded", [TASK], tmp_path / "out")
    shutil.copytree(checkpoint, after / "step7-unsharded")
    with pytest.raises(DataError, match="holds scores of"):
        evaluate(after / "step7-unsharded", [TASK], tmp_path / "out")
    shutil.rmtree(tmp_path / "a")
    evaluate(after / "step7-unsharded", [TASK], tmp_path / "out")
    shutil.copytree(checkpoint, after.parent.with_name("other") / "step7-unsharded")
    with pytest.raises(DataError, match="holds scores of"):
        evaluate(after.parent.with_name("other") / "step7-unsharded", [TASK], tmp_path / "out")
