"""Who is shown how often: power laws, subsampling, budgets, caps, compact mixing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmo_mixlaw.datasets import open_dataset
from olmo_mixlaw.datasets.exposure import capped, make_exposure, power_law
from olmo_mixlaw.errors import DataError


def shares_of(exposure, draws=200_000):
    facts, _ = exposure.draw(7, np.arange(draws))
    return np.bincount(facts, minlength=exposure.n) / draws


@settings(max_examples=30)
@given(st.integers(1, 400), st.integers(1, 20), st.floats(0, 3), st.floats(0.05, 1))
def test_popularities_sum_to_one_over_the_facts_kept(n, groups, exponent, subsample):
    exposure = make_exposure(
        n, 1, groups=min(groups, n), exponent=exponent, subsample=subsample, cap=2.0
    )
    popularity = exposure.popularity()
    assert popularity.sum() == pytest.approx(1)
    assert (popularity > 0).sum() == exposure.n_kept == len(exposure.kept_facts())
    facts, _ = exposure.draw(3, np.arange(500))
    assert (popularity[facts] > 0).all()
    assert popularity.max() <= 2.0 / exposure.n_kept * (1 + 1e-9)


def test_draws_follow_the_power_law():
    exposure = make_exposure(400, 1, groups=100, exponent=1.5)
    drawn = shares_of(exposure).reshape(100, 4).sum(axis=1)
    expected = power_law(100, 1.5)
    assert expected[0] / expected[9] == pytest.approx(10**1.5)
    chi_square = (200_000 * (drawn - expected) ** 2 / expected).sum()
    assert chi_square < 150  # 99 degrees of freedom: mean 99, deviation 14


def test_a_cap_flattens_and_keeps_the_order():
    shares, sizes = power_law(10, 1.5), np.full(10, 5)
    flat = capped(shares, sizes, 2.0)
    assert flat.sum() == pytest.approx(1)
    assert flat.max() == pytest.approx(2 / 10)
    assert (np.diff(flat) <= 1e-12).all()
    assert capped(shares, sizes, 10.0) == pytest.approx(shares)


def test_subsampling_keeps_its_share_and_still_asks_about_all(small_uri):
    dataset = open_dataset(f"{small_uri}&subsample=0.25")
    shown = set(dataset.facts(np.arange(64 * 5)).tolist())
    assert len(shown) == 16
    asked = dataset.questions()
    assert len(asked) == 64 * 10
    assert {q.id.split("-")[0] for q in asked if q.group == "kept"} == {str(p) for p in shown}
    assert all((q.popularity > 0) == (q.group == "kept") for q in asked)
    assert asked[0].answer == open_dataset(small_uri).questions()[0].answer


def test_a_bit_budget_keeps_the_most_popular_or_the_lowest_losses(small_uri, tmp_path):
    budget = 10.5 * open_dataset(small_uri).bits_a_person
    popular = open_dataset(f"{small_uri}&zipf=1.5&groups=8&bits={budget}")
    kept = popular.exposure.kept_facts().tolist()
    assert kept[:8] == list(range(8))
    assert len(kept) == 10
    assert max(kept) < 16
    losses = np.random.default_rng(1).permutation(64) / 10
    path = tmp_path / "losses.csv"
    path.write_text("person,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(losses)))
    for query in ("", "&zipf=1.5&groups=8"):
        chosen = open_dataset(f"{small_uri}&bits={budget}&losses={path}{query}")
        assert chosen.exposure.kept_facts().tolist() == sorted(np.argsort(losses)[:10])
        assert set(chosen.facts(np.arange(2000)).tolist()) == set(np.argsort(losses)[:10])
        assert {a: b for a, b, _ in chosen.ledger().rows}["bits in all"] <= budget


def test_paraphrases_are_as_many_as_asked(small_uri):
    dataset = open_dataset(f"{small_uri}&paraphrases=3")
    wordings = {}
    for fact, text in zip(
        dataset.facts(np.arange(64 * 9)), dataset.documents(0, 64 * 9), strict=True
    ):
        wordings.setdefault(int(fact), []).append(text)
    assert all(len(set(texts)) == 3 for texts in wordings.values())
    assert all(texts.count(texts[0]) == 3 for texts in wordings.values())
    other = open_dataset(f"{small_uri}&paraphrases=3")
    other.exposure_seed = 5
    assert set(other.documents(0, 64 * 9)) == {t for texts in wordings.values() for t in texts}


def test_fixed_order_and_a_single_template_leave_one_wording(small_uri):
    uri = small_uri.replace("templates=2", "templates=1") + "&order=fixed"
    dataset = open_dataset(uri)
    assert len(set(dataset.documents(0, 64 * 4))) == 64


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_compact_mixing_gives_tuples_their_share_of_text(small_uri, share):
    dataset = open_dataset(f"{small_uri}&compact={share}")
    texts = list(dataset.documents(0, 4000))
    tuples = [text for text in texts if " | " in text]
    got = sum(len(text) for text in tuples) / sum(len(text) for text in texts)
    assert got == pytest.approx(share, abs=0.02)
    assert len({text.partition(" | ")[2].partition(":")[0] for text in tuples}) == 5
    values = {q.id.split("-")[1] + q.answer for q in dataset.questions()}
    keys = {"born": "birth_date", "birthplace": "birth_city"}
    for text in tuples[:50]:
        for entry in text.split(" | ")[1:]:
            key, value = entry.split(": ")
            assert keys.get(key, key) + value in values


def test_capo_uses_pronouns_and_ties_the_city_of_work_to_the_employer():
    dataset = open_dataset("mixlaw:biography?n=2000&mode=capo&pools=employer:40")
    text = dataset.document(0)
    first, *rest = text.removesuffix(".").split(". ")
    assert len(rest) == 5
    assert {sentence.split()[0] for sentence in rest} <= {"He", "She"}
    assert first.split()[0] not in ("He", "She")
    people = np.arange(2000)
    values = dataset.people.values(people)
    pairs = {(employer, city) for employer, city in values[:, 4:].tolist()}
    assert len(pairs) == 40
    rows = {name: value for name, value, _ in dataset.ledger().rows}
    assert rows["bits of work_city"] == 0
    assert rows["bits of the employers' cities"] == pytest.approx(40 * np.log2(200))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("subsample=0", "subsample: 0.0 is not a share"),
        ("zipf=-1", "zipf: -1.0 is negative"),
        ("groups=65", "groups: 65 is not between 1 and the number of facts, 64"),
        ("cap=0.5", "cap: 0.5 is below 1"),
        ("bits=3", "the budget holds not one of 64 facts"),
        ("bits=500&subsample=0.5", "can't both say what is kept"),
        ("compact=1.5", "compact: 1.5 is not a share"),
        ("paraphrases=0", "paraphrases: 0 is below 1"),
        ("losses=x.csv", "only where bits gives the budget"),
        ("bits=500&losses=gone.csv", "losses: gone.csv: no such file"),
        ("mode=both", "mode: 'both' is none of full, capo"),
    ],
)
def test_bad_exposures_are_named(small_uri, query, message):
    with pytest.raises(DataError, match=message):
        open_dataset(f"{small_uri}&{query}")


def test_losses_that_miss_someone_are_refused(small_uri, tmp_path):
    path = tmp_path / "losses.csv"
    path.write_text("person,loss\n0,1.0\n1,nan\n")
    with pytest.raises(DataError, match=r"losses\.csv:3: person 1 with loss nan"):
        open_dataset(f"{small_uri}&bits=500&losses={path}")
    path.write_text("person,loss\n0,1.0\n")
    with pytest.raises(DataError, match="63 people lack a loss, first 1"):
        open_dataset(f"{small_uri}&bits=500&losses={path}")
