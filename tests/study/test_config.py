import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.errors import ConfigError, MixlawError
from olmo_mixlaw.models.ladder import load_ladder, short
from olmo_mixlaw.schema import parse_count
from olmo_mixlaw.study.config import load_study
from olmo_mixlaw.study.plan import plan, whole_batches


def test_shipped_study_has_three_sizes_and_five_mixtures():
    study = load_study("micro")
    runs = plan(study)
    assert len(runs) == len({run.run_id for run in runs}) == 15
    costs = [run.rung.n_active * run.n_tokens for run in runs]
    assert costs == sorted(costs, reverse=True)
    assert all(run.n_tokens == run.steps * run.rung.batch_tokens for run in runs)
    assert all(abs(sum(run.ratios.values()) - 1) < 1e-9 for run in runs)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sizes: [w16, w32]", "sizes: [w16, w33]", r"sizes: unknown size 'w33'; did you mean"),
        ("size: w64", "size: w129", r"target.size: unknown size 'w129'; did you mean 'w128'"),
        ("ladder: micro-dense", "ladder: micro-dens", r"tiny.yaml: ladder: .*mean 'micro-dense'"),
        ("mixtures:", "mixtres:", "unknown key 'mixtres'; did you mean 'mixtures'"),
        ("wiki: 0.8, bio: 0.2", "wiki: 0.8, bio: 0.3", r"mixtures.low: the ratios sum to 1.1"),
        ("wiki: 0.8, bio: 0.2", "wiki: 1.2, bio: -0.2", r"mixtures.low.wiki: 1.2: a ratio lies"),
        ("wiki: 0.8, bio: 0.2", "wikki: 0.8, bio: 0.2", r"unknown domain 'wikki'; did you mean"),
        ("corpus=wikipedia", "corpus=wikipedi", r"domains.wiki: .*did you mean 'wikipedia'"),
        ("mixlaw:biography", "mixlaw:biografy", r"domains.bio: unknown dataset 'biografy'; did"),
        ("n=8", "m=8", r"unknown parameter 'm'"),
        ("[no_mixture, transfer]", "[transfr]", r"laws: unknown law 'transfr'; did you mean"),
        ("tokens: [40_000]\n", "tokens: []\n", "tokens: at least one is needed"),
        ("tokens: [40_000]\n", "tokens: [few]\n", r"tokens\[0\]: Value 'few'"),
        ("[0.1, 0.9]", "[0.9, 0.1]", r"target.bounds.bio: .*expected \[least, most\]"),
        ("vocab_size: 512", "vocab_size: 200", r"tokenizer.vocab_size: 200: at least 258"),
        ("[bio_recall]", "[bio_recal]", r"did you mean 'bio_recall'"),
        ("sizes: [w16, w32]", "sizes: [w32]", r"target.size: w64: runs of one size \(w32\)"),
        ("tokens: 40_000", "tokens: 80_000", r"target.tokens: 80000: runs of one budget"),
        ("workers: 2", "workers: 0", "workers: 0: must be positive"),
    ],
)
def test_wrong_value_is_one_line_before_any_work(study_file, tmp_path, capsys, old, new, message):
    path = study_file([(old, new)])
    with pytest.raises(MixlawError, match=message):
        load_study(path)
    assert cli.run(cli.app, ["study", "run", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_study_file_is_named():
    with pytest.raises(ConfigError, match=r"studies/none.yaml: no such file"):
        load_study("studies/none.yaml")


def test_overrides_change_single_keys(study_file):
    study = load_study(study_file(), ("workers=5", "target.size=w96"))
    assert (study.workers, study.target.size) == (5, "w96")
    with pytest.raises(ConfigError, match="unknown key 'wrokers'"):
        load_study(study_file(), ("wrokers=5",))


def test_plan_prints_every_run_and_trains_nothing(study_file, tmp_path, capsys):
    assert cli.run(cli.app, ["study", "plan", str(study_file())]) == 0
    out = capsys.readouterr().out
    assert "w32-high-40k-s1" in out
    assert "6 runs" in out
    assert not (tmp_path / "out").exists()


def test_tokens_become_whole_batches():
    rung = load_ladder("micro-dense").rung("w16")
    assert whole_batches(1, rung) == (1, rung.batch_tokens)
    assert whole_batches(10 * rung.batch_tokens + 3, rung) == (10, 10 * rung.batch_tokens)


def test_counts_read_as_people_write_them():
    assert [short(n) for n in (12, 40_000, 2e6, 1.5e9, 5e12)] == ["12", "40k", "2M", "1.5B", "5T"]
    edges = (0, 999, 999.7, 999_400, 999_600, 98_400, 3e15)
    assert [short(n) for n in edges] == ["0", "999", "1k", "999k", "1M", "98.4k", "3000T"]


@pytest.mark.parametrize(
    ("count", "text"), [(2e6, "2.00M"), (11.6e6, "11.6M"), (111_200, "111k"), (999_600, "1.00M")]
)
def test_counts_in_a_column_have_three_digits(count, text):
    assert short(count, zeros=True) == text


@pytest.mark.parametrize("count", [12, 590_000, 1.2e9, 4e12, 98_400])
def test_a_short_count_is_read_as_the_same_number(count):
    for zeros in (False, True):
        assert parse_count(short(count, zeros), "x") == count
