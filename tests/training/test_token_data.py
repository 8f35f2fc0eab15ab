"""Wrong token data ends a run before its first step, or at the batch that holds it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("olmo")

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.datasets import load_tokenizer
from olmo_mixlaw.datasets.writer import write_shards
from olmo_mixlaw.errors import DataError, MixlawError
from olmo_mixlaw.training.config import load
from olmo_mixlaw.training.launch import train

Write = Callable[..., Path]
URI = "mixlaw:biography?n=12&seed=4&pools=small"


def spoilt(tokens: Path, folder: Path, how: str) -> Path:
    """The token file `high`, spoilt."""
    path = folder / f"{how}.npy"
    ids = np.fromfile(tokens / "high.npy", np.uint16)
    if how == "text":
        path.write_text('{"text": "a line of words"}\n' * 200)
    elif how == "saved":
        np.save(path, ids)
    elif how == "uint32":
        ids.astype(np.uint32).tofile(path)
    elif how == "beyond":
        ids[-1] = 300
        ids.tofile(path)
    else:
        path.write_bytes(ids.tobytes()[:-1])
    return path


SPOILT = {
    "text": "is text, not token ids",
    "saved": "was written by numpy.save",
    "uint32": "set data.memmap_dtype: uint32",
    "beyond": "token 39999 is 300, beyond the 300 of the vocabulary",
    "odd": "79999 bytes are no whole number of uint16 tokens",
}


@pytest.mark.parametrize("mixed", [True, False])
@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_token_file_is_refused_with_and_without_a_mixture(
    write: Write, tokens: Path, tmp_path: Path, how: str, mixed: bool
) -> None:
    path = spoilt(tokens, tmp_path, how)
    data: dict[str, Any] = {"paths": [str(path)]}
    changes: dict[str, Any] = {"data": data, "mixture": None}
    if mixed:
        changes = {"data": {"datasets": {"web": [str(path)]}}, "mixture": {"ratios": {"web": 1}}}
    config = write("bad", **changes)
    with pytest.raises(DataError) as error:
        train(config)
    key = "data.datasets.web" if mixed else "data.paths"
    assert str(error.value).startswith(f"{config}: {key}: {path}: ")
    assert SPOILT[how] in str(error.value)
    assert "\n" not in str(error.value)
    assert not config.with_suffix("").exists()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("mixed", [True, False])
def test_an_id_beyond_the_sample_ends_the_run_in_one_line(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture, mixed: bool, workers: int
) -> None:
    ids = np.random.default_rng(1).integers(2, 290, 300_000).astype(np.uint16)
    at = 121_900
    ids[at : at + 900] = 5000
    path = tmp_path / "web.npy"
    ids.tofile(path)
    data: dict[str, Any] = {"num_workers": workers, "datasets": {"web": [str(path)]}}
    if workers:
        data["prefetch_factor"] = 2
    mixture = {"ratios": {"web": 1.0}} if mixed else None
    config = write("bad", data=data, mixture=mixture, max_duration="300_000T", save_overwrite=True)
    assert cli.run(cli.app, ["train", str(config)]) == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error:")]
    if mixed:
        assert f"{path}: token 12" in line
        assert "beyond the 300 of the vocabulary" in line
    else:
        assert "holds token 5000, beyond the 320 of the model" in line


def test_files_of_olmos_own_evaluators_are_checked(write: Write, tmp_path: Path) -> None:
    text = tmp_path / "val.npy"
    text.write_text("words of a validation file\n" * 50)
    evaluator = {"label": "val", "type": "lm", "data": {"datasets": {"c4": [str(text)]}}}
    with pytest.raises(DataError, match=r"evaluators\.0\.data\.datasets\.c4: .*is text"):
        train(write("bad", evaluators=[evaluator]))


@pytest.mark.parametrize("mixed", [True, False])
def test_patterns_name_several_files(write: Write, tmp_path: Path, mixed: bool) -> None:
    for i in range(3):
        ids = np.random.default_rng(i).integers(2, 290, 640).astype(np.uint16)
        ids.tofile(tmp_path / f"part-{i}.npy")
    data = {"datasets": {"web": [str(tmp_path / "part-*.npy")]}}
    mixture = {"ratios": {"web": 1.0}, "max_epochs": 1} if mixed else None
    assert train(write(data=data, mixture=mixture, max_duration=15)).name == "step15-unsharded"
    empty = {"datasets": {"web": [str(tmp_path / "none-*.npy")]}}
    with pytest.raises(DataError, match=r"data\.datasets\.web: .*none-\*\.npy: no file matches"):
        train(write("empty", data=empty, mixture=mixture))


def test_what_data_make_wrote_agrees_with_what_train_reads(
    write: Write, tokens: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tokens / "tokenizer.json")
    for name, eos in (("right", 0), ("wrong", 1)):
        write_shards(URI, tokenizer, tmp_path / name, eos_token_id=eos, documents=40)
    for mixture in ({"ratios": {"bio": 1}}, None):
        data = {"datasets": {"bio": [str(tmp_path / "right" / "part-*.npy")]}}
        train(write(f"fine{mixture is None}", data=data, mixture=mixture, max_duration=2))
        data = {"datasets": {"bio": [str(tmp_path / "wrong" / "part-*.npy")]}}
        with pytest.raises(DataError, match=r"end with token 1, this run's with 0; set model\.eos"):
            train(write("bad", data=data, mixture=mixture))


@pytest.mark.parametrize("mixed", [True, False])
def test_an_end_of_text_that_is_none_is_warned_of(
    write: Write, caplog: pytest.LogCaptureFixture, mixed: bool
) -> None:
    model = {**load(write("plain")).plain()["model"], "eos_token_id": 1}
    changes: dict[str, Any] = {} if mixed else {"mixture": None}
    with caplog.at_level(logging.WARNING):
        train(write(model=model, max_duration=1, **changes))
    said = [m for m in caplog.messages if "eos_token_id" in m]
    assert len(said) == 1
    assert "1 is '<|padding|>' here; this tokenizer's end of text, '<|endoftext|>', is 0" in said[0]
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        train(write("right", max_duration=1, **changes))
    assert not [m for m in caplog.messages if "eos_token_id" in m]


def test_one_epoch_of_plain_files_is_every_sequence_once(write: Write, tokens: Path) -> None:
    data = {"paths": [str(tokens / "low.npy")]}
    final = train(write(data=data, mixture=None, max_duration="1ep"))
    assert final.name == f"step{4000 // 16 // 8}-unsharded"
    with pytest.raises(MixlawError, match=r"'xep' is neither steps .* nor epochs \(1ep\)"):
        train(write("bad", data=data, mixture=None, max_duration="xep"))
