"""A run whose inputs were moved along with it is scored on them where they are now."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from olmo_mixlaw.evaluation import evaluate, provenance, run
from olmo_mixlaw.schema import read_mapping

INSIDE = Path("out", "runs", "one", "checkpoints", "step7-unsharded")


@pytest.fixture
def project(checkpoint: Path, tmp_path: Path) -> Path:
    """A folder with a text, token files and, deep in it, a checkpoint that was trained on them."""
    import yaml

    folder = tmp_path / "before"
    (folder / "tokens").mkdir(parents=True)
    words = ["one two three", "four five six", "seven eight nine", "ten eleven twelve"]
    (folder / "my web.txt").write_text("\n\n".join(f"{w}, {i}" for i in range(40) for w in words))
    (folder / "tokens" / "part-0.npy").write_bytes(bytes(512))
    shutil.copytree(checkpoint, folder / INSIDE)
    config = read_mapping(checkpoint / "config.yaml")
    config["save_folder"] = str((folder / INSIDE).parent)
    config["data"]["datasets"] = {
        "web": [f"mixlaw:text?heldout=0.3&path={folder}/my%20web.txt"],
        "parts": [f"{folder}/tokens/part-*.npy"],
        "folder": [f"{folder}/tokens"],
        "away": [f"{folder}/nowhere.npy", "tokens/part-0.npy", "mixlaw:biography?n=12"],
    }
    (folder / INSIDE / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def sources(folder: Path) -> dict[str, list[str]]:
    return {k: list(v) for k, v in provenance.record_of(folder).sources.items()}


def test_sources_are_named_by_where_they_are_now(project: Path, tmp_path: Path) -> None:
    first = sources(project / INSIDE)
    assert first["folder"] == [f"{project}/tokens"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    after = project.rename(tmp_path / "deep" / "er" / "after")
    now = sources(after / INSIDE)
    assert now["web"] == [f"mixlaw:text?heldout=0.3&path={after}/my%20web.txt"]
    assert now["parts"] == [f"{after}/tokens/part-*.npy"]
    assert now["folder"] == [f"{after}/tokens"]
    assert now["away"] == first["away"]


def test_what_stayed_where_it_was_is_found_there(project: Path, tmp_path: Path) -> None:
    first = sources(project / INSIDE)
    alone = (project / "out").rename(tmp_path / "alone")
    assert sources(alone / INSIDE.relative_to("out")) == first
    shutil.copytree(project / "tokens", tmp_path / "tokens")
    assert sources(alone / INSIDE.relative_to("out")) == first


def test_a_moved_run_is_scored_on_its_own_text(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = {"task_name": "domain_loss", "context_kwargs": {"domain": "web"}}
    first = evaluate(project / INSIDE, [task], tmp_path / "one")
    after = project.rename(tmp_path / "after")
    monkeypatch.setattr(run, "_CUT", {})  # what this process knows of the text
    again = evaluate(after / INSIDE, [task], tmp_path / "other")
    assert set(again["task"]) == set(first["task"])
    assert again["value"].tolist() == first["value"].tolist()
