"""What a report says of where facts were to be learned, before any run."""

from olmo_mixlaw.advice.knowledge import Outlook, Rule, facts_of
from olmo_mixlaw.advice.knowledge.barrier import PILOT
from olmo_mixlaw.advice.knowledge.outlook import quantiles
from olmo_mixlaw.datasets import open_dataset, train_tokenizer
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.foreseen import foreseen, foreseen_text
from olmo_mixlaw.study.plan import rung_of


def tokenizer_of(study, folder):
    texts = (open_dataset(study.domains["wiki"]).document(i) for i in range(40))
    path = folder / "tokenizer.json"
    train_tokenizer(texts, 512, path)
    return path


def test_every_size_and_the_target_by_the_published_rule(study_file, tmp_path):
    study = load_study(study_file())
    path = tokenizer_of(study, tmp_path)
    rows = foreseen(study, "bio", path)
    sizes = [*study.sizes, study.target.size]
    assert [row.size for row in rows] == [rung_of(study, s).n_params for s in sizes]
    assert [row.is_target for row in rows] == [False, False, True]
    facts = facts_of(study.domains["bio"], tokenizer=str(path))
    tokens = float(study.target.tokens)
    alone = quantiles(Outlook(facts, rows[-1].size, tokens, Rule(), PILOT, 0).ratios(0.5))
    assert (rows[-1].low, rows[-1].middle, rows[-1].high) == (
        alone["low"],
        alone["middle"],
        alone["high"],
    )
    assert f"{rows[-1].middle:.2g}" in foreseen_text(rows)


def test_a_domain_without_facts_is_not_spoken_of(study_file, tmp_path):
    study = load_study(study_file())
    assert foreseen(study, "wiki", tokenizer_of(study, tmp_path)) == []
