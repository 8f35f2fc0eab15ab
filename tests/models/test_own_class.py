"""Our own transformers class holds what no stock class does, with or without this package."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import (
    OWN,
    SHAPE,
    assert_same_model,
    assert_same_text,
    ids,
    load_hf,
    write_checkpoint,
)
from rounding import assert_same_logits

from olmo_mixlaw.models.export import export, load_checkpoint


@pytest.mark.parametrize("name", OWN)
def test_own_class_has_the_same_logits_and_greedy_text(tmp_path: Path, name: str) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN[name]))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    hf = load_hf(out)
    assert hf.config.model_type == "mixlaw"
    assert_same_model(checkpoint, hf, out)


def test_own_class_ignores_padding_and_continues_from_its_cache(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["deepseek"]))
    hf = load_hf(export(checkpoint, tmp_path / "hf", own_class=True))
    text = ids(1, 20)
    with torch.no_grad():
        whole = hf(text).logits
        first = hf(text[:, :12], use_cache=True)
        rest = hf(text[:, 12:], past_key_values=first.past_key_values).logits
        padded = torch.cat([torch.ones(1, 5, dtype=torch.long), text], dim=1)
        mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(text)], dim=1)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        shifted = hf(padded, attention_mask=mask, position_ids=places).logits[:, 5:]
        labelled = hf(text, labels=text).loss
    assert_same_logits(rest, whole[:, 12:])
    assert_same_logits(shifted, whole)
    expected = torch.nn.functional.cross_entropy(whole[0, :-1], text[0, 1:])
    torch.testing.assert_close(labelled, expected)


def test_own_class_saves_and_loads_again(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["deepseek"]))
    hf = load_hf(export(checkpoint, tmp_path / "hf", own_class=True))
    hf.save_pretrained(tmp_path / "again")
    again = load_hf(tmp_path / "again")
    before, after = hf.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        assert_same_logits(again(ids()).logits, hf(ids()).logits)


ALONE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("olmo_mixlaw", "olmo"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import torch, transformers
folder, out = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True).eval()
given = torch.load(out)
with torch.no_grad():
    logits = model(given["ids"]).logits
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
prompt = tokenizer("w5 w17 w40 w2", return_tensors="pt")
text = model.generate(**prompt, max_new_tokens=12, do_sample=False)
torch.save({"logits": logits, "text": text}, out)
"""


@pytest.mark.slow
def test_own_class_loads_where_the_package_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["deepseek"]))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    given = tmp_path / "given.pt"
    torch.save({"ids": ids()}, given)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(out), str(given)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(given)
    olmo = load_checkpoint(checkpoint)
    with torch.no_grad():
        assert_same_logits(found["logits"], olmo(ids()).logits)
        assert_same_text(olmo, torch.tensor([[5, 17, 40, 2]]), found["text"][0, 4:])


def test_scorer_knows_the_own_class_in_a_fresh_process(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path, dataclasses.replace(SHAPE, **OWN["shared"]))
    out = export(checkpoint, tmp_path / "hf", own_class=True)
    code = (
        "import sys, pathlib; from olmo_mixlaw.evaluation.loading import load_model;"
        "load_model(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
