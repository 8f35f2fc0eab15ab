"""Plans: the published question, remedies, cautions, and facts counted from a dataset."""

from __future__ import annotations

import json

import numpy as np
import pytest

from olmo_mixlaw.advice.knowledge import Facts, facts_of, plan
from olmo_mixlaw.advice.knowledge.plan import document
from olmo_mixlaw.advice.knowledge.texts import plan_text
from olmo_mixlaw.cli.answer import jsonable
from olmo_mixlaw.errors import ConfigError, DataError

ASKED = {"n_params": 1e9, "n_tokens": 1e11}


def test_a_plan_answers_with_a_probability_and_what_it_would_take():
    found = plan("300k", ratio=0.05, **ASKED)
    assert found.verdict == "probably"
    assert 0.65 < found.probability < 0.9
    assert found.exposures == pytest.approx(0.05 * 1e11 / 3e7)
    need = found.ratio_needed
    assert need["low"] < need["middle"] < need["enough"] < need["high"]
    assert plan("300k", ratio=need["enough"] * 1.001, **ASKED).probability >= 0.9
    assert found.optimum_ratio[0] < need["middle"]
    assert found.kept_if_known == 1.0
    said = plan_text(found)
    assert said.startswith("probably: 50% or more of 300,000 facts are known with probability")
    json.dumps(jsonable(document(found)), allow_nan=False)


def test_below_the_threshold_fewer_or_shorter_facts_are_advised():
    found = plan(Facts(1.28e6), ratio=0.2, n_params=410e6, n_tokens=32e9)
    assert found.verdict == "no"
    assert found.subsampling.helps
    assert 0.1 < found.subsampling.rho < 0.9
    assert found.subsampling.known > found.subsampling.whole + 0.1
    assert found.near.n_params == 410e6
    tau = [p for _, p in found.mixing.rows]
    assert tau == sorted(tau)
    assert not found.mixing.reached


def test_a_model_that_knows_the_facts_has_no_barrier():
    asked = {"ratio": 0.25, "n_params": 70e6, "n_tokens": 32e9}
    cold, warm = (plan(Facts(320e3), warm=w, **asked) for w in (False, True))
    assert cold.probability < 0.5 < warm.probability
    assert warm.ratio_needed["middle"] < cold.ratio_needed["middle"]
    assert warm.optimum_ratio == cold.optimum_ratio


def test_cautions_name_what_is_wrong_with_the_plan():
    often = plan(Facts(1000), ratio=0.1, **ASKED)
    assert any(
        note.startswith("over-repeated: each fact is seen 100,000") for note in often.warnings
    )
    seldom = plan(Facts(1e8), ratio=0.1, **ASKED)
    assert any("1 exposures a fact: about 100 are needed" in note for note in seldom.warnings)
    assert any("this size can't know them all" in note for note in seldom.warnings)
    assert seldom.verdict == "no"
    assert any("without an interval" in note for note in seldom.warnings)


def test_facts_are_counted_from_a_dataset(byte_tokenizer, tmp_path):
    path = tmp_path / "t.json"
    byte_tokenizer.save(str(path))
    found = facts_of("biography?n=64&seed=1&templates=2&pools=small", tokenizer=str(path))
    assert found.n == 64
    assert found.answers == 5
    assert found.bits == pytest.approx(np.log2([60, 24, 36, 12, 48]).sum())
    assert found.short_tokens < found.tokens
    half = facts_of("mixlaw:biography?n=64&subsample=.5&pools=small", tokens=10, tuple_tokens=5)
    assert (half.n, half.tokens, half.short_tokens) == (32, 10, 5)
    with pytest.raises(DataError, match="a slope dataset holds no facts that could be counted"):
        facts_of("slope")
    with pytest.raises(ConfigError, match="unknown dataset 'biographie'; did you mean 'biography'"):
        facts_of("biographie?n=3")


def test_remedies_keep_the_books():
    facts = Facts(1000, bits=10, tokens=20, tuple_tokens=5)
    assert facts.subsampled(0.25).exposures(0.1, 1e6) == 4 * facts.exposures(0.1, 1e6)
    mixed = facts.compacted(0.5)
    assert mixed.exposures(0.1, 1e6) == pytest.approx(facts.exposures(0.1, 1e6) * 3 / 1.5)
    assert facts.compacted(0.0) == facts
    with pytest.raises(ConfigError, match="rho: a share above 0"):
        facts.subsampled(0)
    with pytest.raises(ConfigError, match="tau: must be finite and not negative"):
        facts.compacted(-1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0.0}, "ratio: lies between 0 and 1, found 0"),
        ({"ratio": 5.0}, "ratio: lies between 0 and 1, found 5"),
        ({"accuracy": 1.5}, r"accuracy: lies between 0 and 1, found 1\.5"),
        ({"n_params": 0.0}, "n_params: must be positive and finite, found 0"),
    ],
)
def test_wrong_numbers_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        plan("300k", **({"ratio": 0.05, **ASKED} | change))
