"""The benchmarks' readers and the writers of every form of query, on small invented tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

import level_families
import repetition
import scores
import splits
import tables
from holdout import compare
from queries import Way, predict_all
from repetition import effective, fit_repeated

from olmo_mixlaw.laws.choice.holdout import Split
from olmo_mixlaw.runs import Design

WAY = Way(law="transfer", level=False)
RNG = np.random.default_rng(5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which tables are looked for."""
    monkeypatch.setattr(tables, "FOLDERS", [tmp_path])
    return tmp_path


def keep(folder: Path, stem: str, frame: pd.DataFrame) -> None:
    frame.to_csv(folder / f"{stem}.csv.gz", index=False)


def asked(folder: Path, stem: str, frame: pd.DataFrame, drop: list[str]) -> pd.DataFrame:
    """The frame in another order, kept as a query without the columns `drop`."""
    mixed = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    keep(folder, f"{stem}.query", mixed.drop(columns=drop))
    return mixed


def answer(folder: Path, name: str, file: str) -> pd.DataFrame:
    """What is written for the table `name`, into the only file `file`."""
    out = folder / "out"
    assert [path.name for path in predict_all(out, WAY, [name])] == [file]
    return pd.read_csv(out / file)


def power_law(n: np.ndarray, d: np.ndarray, low: float = 1.8) -> np.ndarray:
    return low + 0.6 * (n / 1e8) ** -0.3 + 0.5 * (d / 1e10) ** -0.35


def sizes(ns: tuple[float, ...], ds: tuple[float, ...]) -> pd.DataFrame:
    rows = [(f"m{n:g}", n, d) for n in ns for d in ds]
    frame = pd.DataFrame(rows, columns=["run_id", "N", "D"])
    return frame.assign(loss=power_law(frame["N"].to_numpy(), frame["D"].to_numpy()))


SMALL = sizes((5e7, 1e8, 2e8, 4e8), (2e9, 5e9, 1e10, 3e10))
LARGE = sizes((8e8,), (5e9, 1e10, 3e10))


def mixtures(runs: int, n: float) -> pd.DataFrame:
    """Two sources, each its own target, at one size."""
    share = np.linspace(0.1, 0.9, runs)
    rows = [
        {
            "run_id": f"{n:g}-{i}",
            "N": n,
            "D": 1e10 * (1 + i % 3),
            "w_web": h,
            "w_code": 1 - h,
            "domain": domain,
            "loss": 1.5 + 0.6 * (n / 1e8) ** -0.3 + 0.3 * (own * (1 + i % 3)) ** -0.3,
        }
        for i, h in enumerate(share)
        for domain, own in (("web", h), ("code", 1 - h))
    ]
    return pd.DataFrame(rows)


def test_a_query_of_mixtures_gets_its_losses_row_by_row(folder: Path) -> None:
    keep(folder, "p5_edmsl4", pd.concat([mixtures(9, 5e7), mixtures(9, 1e8), mixtures(9, 2e8)]))
    query = asked(folder, "p5_edmsl4", mixtures(7, 3e8), ["loss"])
    found = answer(folder, "p5", "p5_edmsl4.query.csv")
    assert found["run_id"].tolist() == query["run_id"].tolist()
    assert found["domain"].tolist() == query["domain"].tolist()
    np.testing.assert_allclose(found["loss"], query["loss"], rtol=0.02)


def test_a_swarm_is_answered_by_a_second_file_of_metrics(folder: Path) -> None:
    share = np.sort(RNG.uniform(0.05, 0.95, 30))
    names = [f"run{i}" for i in range(30)]
    ids = {"run": names, "name": names, "index": range(30)}
    ratios = pd.DataFrame({**ids, "web": share, "code": 1 - share})
    metrics = pd.DataFrame(
        {
            **ids,
            "arc_easy:rc::olmes": 0.8 + 0.3 * share**-0.3,
            "mbpp:bpb": 0.5 + 0.3 * (1 - share) ** -0.3,
        }
    )
    known = np.arange(30) % 3 > 0
    stem = "p13_olmix_reuse22"
    keep(folder, f"{stem}.ratios", ratios[known])
    keep(folder, f"{stem}.metrics", metrics[known])
    query = ratios[~known].sample(frac=1, random_state=1)
    keep(folder, f"{stem}.query.ratios", query)
    found = answer(folder, "p13", f"{stem}.query.metrics.csv")
    assert list(found) == list(metrics)
    assert found["run"].tolist() == query["run"].tolist()
    truth = metrics.set_index("run").loc[query["run"]]
    for name in list(metrics)[3:]:
        np.testing.assert_allclose(found[name], truth[name], rtol=0.05)


def test_one_mixture_is_answered_by_size_and_tokens(folder: Path) -> None:
    both = [SMALL.assign(domain="dclm"), SMALL.assign(domain="edu", loss=SMALL["loss"] - 0.3)]
    keep(folder, "p14_gemstones", pd.concat(both))
    large = [LARGE.assign(domain="edu", loss=LARGE["loss"] - 0.3), LARGE.assign(domain="dclm")]
    query = asked(folder, "p14_gemstones", pd.concat(large), ["loss"])
    found = answer(folder, "p14", "p14_gemstones.query.csv")
    np.testing.assert_allclose(found["loss"], query["loss"], rtol=0.01)


def test_corpora_of_one_file_are_answered_each_by_itself(folder: Path) -> None:
    off = {"comma": 0.4, "dclm": 0.0, "nemotron": -0.2}
    frames = {
        part: pd.concat(
            [f.assign(corpus=c, domain="paloma", loss=f["loss"] + o) for c, o in off.items()]
        )
        for part, f in (("known", SMALL), ("asked", LARGE))
    }
    keep(folder, "p19_marin_isoflops", frames["known"])
    query = asked(folder, "p19_marin_isoflops", frames["asked"], ["loss"])
    found = answer(folder, "p19-comma", "p19_marin_isoflops.query.csv")
    np.testing.assert_allclose(found["loss"], query["loss"], rtol=0.01)


def repeated(ns: tuple[float, ...]) -> pd.DataFrame:
    rows = [(n, u * e, u, e) for n in ns for u in (1e9, 4e9) for e in (1.0, 3.0, 10.0, 40.0)]
    frame = pd.DataFrame(rows, columns=["N", "D", "unique_tokens", "epochs"])
    fresh = effective(frame["D"].to_numpy(), frame["unique_tokens"].to_numpy(), 8.0)
    names = [f"r{i}" for i in range(len(frame))]
    loss = power_law(frame["N"].to_numpy(), fresh)
    return frame.assign(run_id=names, dedup=0, domain="c4", loss=loss)


def test_repeated_tokens_are_answered_by_what_they_are_worth(folder: Path) -> None:
    keep(folder, "p16_repetition", repeated((5e7, 1e8, 2e8, 4e8)))
    query = asked(folder, "p16_repetition", repeated((8e8,)), ["loss"])
    found = answer(folder, "p16", "p16_repetition.query.csv")
    np.testing.assert_allclose(found["loss"], query["loss"], rtol=0.03)


def test_scores_of_fine_tuned_models_and_their_means(folder: Path) -> None:
    rows = [
        {
            "run_id": f"{model}-{i}",
            "model": f"Qwen2.5-{model}B",
            "ratio_chat": h,
            "ratio_math": 1 - h,
            **{f"metric_t{t}": 0.3 + 0.02 * t + 0.05 * np.log(model) + 0.1 * h for t in range(12)},
            "metric_avg_id": 0.0,
        }
        for model in (0.5, 3, 7)
        for i, h in enumerate(np.linspace(0.1, 0.9, 9))
    ]
    frame = pd.DataFrame(rows)
    known = (frame["model"] != "Qwen2.5-7B") | (frame.index % 2 == 0)
    keep(folder, "p18_admire", frame[known])
    metrics = [c for c in frame if c.startswith("metric_")]
    query = asked(folder, "p18_admire", frame[~known], metrics)
    found = answer(folder, "p18", "p18_admire.query.csv")
    assert set(found) >= {*metrics, "metric_avg_ood", "metric_avg_id+ood"}
    np.testing.assert_allclose(found["metric_t5"], query["metric_t5"], atol=0.02)
    ten = found[[f"metric_t{t}" for t in range(10)]].mean(axis=1)
    np.testing.assert_allclose(found["metric_avg_id"], ten)


def tasks(frame: pd.DataFrame, loss: str) -> pd.DataFrame:
    parts = []
    for task, floor, off in (("piqa", 0.5, 0.0), ("arc_easy", 0.25, 0.2)):
        own = frame["loss"] + off
        score = floor + (1 - floor) / (1 + np.exp(3 * (own - 2.9)))
        parts.append(frame.drop(columns="loss").assign(task=task, accuracy=score, **{loss: own}))
    return pd.concat(parts, ignore_index=True)


def test_checkpoints_are_answered_with_task_loss_and_accuracy(folder: Path) -> None:
    stem = "p14_gemstones_tasks"
    known, new = (
        tasks(f, "answer_loss").assign(checkpoint=lambda g: g["D"].map("step{:g}".format))
        for f in (SMALL, LARGE)
    )
    keep(folder, stem, known)
    query = asked(folder, stem, new, ["answer_loss", "accuracy"])
    found = answer(folder, "p14-tasks", f"{stem}.query.csv")
    np.testing.assert_allclose(found["answer_loss"], query["answer_loss"], rtol=0.01)
    np.testing.assert_allclose(found["accuracy"], query["accuracy"], atol=0.02)


def test_a_ladder_is_answered_with_bits_and_accuracy(folder: Path) -> None:
    frame = SMALL.assign(run_id=SMALL["run_id"] + "-" + SMALL["D"].astype(str))
    keep(folder, "p6_olmo_ladder", tasks(frame, "bpb"))
    query = asked(folder, "p6_olmo_ladder", tasks(LARGE, "bpb"), ["bpb", "accuracy"])
    found = answer(folder, "p6", "p6_olmo_ladder.query.csv")
    np.testing.assert_allclose(found["bpb"], query["bpb"], rtol=0.01)
    np.testing.assert_allclose(found["accuracy"], query["accuracy"], atol=0.02)


@pytest.mark.parametrize(("name", "stem"), [("p8", "p8_gadre"), ("p9", "p9_kempner")])
def test_losses_and_accuracies_of_corpora_are_told_apart(
    folder: Path, name: str, stem: str
) -> None:
    def long(frame: pd.DataFrame) -> pd.DataFrame:
        frame = frame.assign(run_id=frame["run_id"] + "-" + frame["D"].astype(str))
        parts = [
            frame.assign(kind="loss", task="c4", value=frame["loss"]),
            frame.assign(kind="task_ce", task="arc_ce", value=frame["loss"] + 1),
            frame.assign(kind="accuracy", task="arc", value=1 - 0.2 * frame["loss"]),
        ]
        return pd.concat(parts, ignore_index=True).drop(columns="loss").assign(train_data="web")

    keep(folder, stem, long(SMALL))
    query = asked(folder, stem, long(LARGE), ["value"])
    found = answer(folder, name, f"{stem}.query.csv")
    np.testing.assert_allclose(found["value"], query["value"], rtol=0.03)


def test_given_losses_become_accuracies(folder: Path) -> None:
    """One task by its own loss, one by the others', and a run without losses by its size."""

    def runs(count: int, n: float, seed: int) -> pd.DataFrame:
        ability = np.random.default_rng(seed).uniform(-0.5, 0.5, count) + 0.2 * np.log(n / 4e8)
        parts = []
        for task, floor, losses in (
            ("piqa", 0.5, 2.0 - ability),
            ("arc_easy", 0.25, 3.0 - 1.5 * ability),
            ("jeopardy", 0.0, None),
        ):
            score = floor + (1 - floor) / (1 + np.exp(-2 * ability))
            ids = [f"{n:g}-{seed}-{i}" for i in range(count)]
            part = {"run_id": ids, "corpus": ids, "N": n, "D": 20 * n, "task": task}
            parts.append(pd.DataFrame({**part, "accuracy": score, "task_loss": losses}))
        return pd.concat(parts, ignore_index=True)

    keep(folder, "p15_dclm", pd.concat([runs(12, 4e8, 0), runs(16, 1.4e9, 1)]))
    new = runs(9, 1.4e9, 2)
    new.loc[new["run_id"] == new["run_id"].iloc[0], "task_loss"] = np.nan
    query = asked(folder, "p15_dclm", new, ["accuracy"])
    found = answer(folder, "p15", "p15_dclm.query.csv")
    given = query["run_id"] != new["run_id"].iloc[0]
    np.testing.assert_allclose(found["accuracy"][given], query["accuracy"][given], atol=0.03)
    assert found["accuracy"][~given].between(0.2, 0.9).all()


def test_sparse_models_are_answered_by_the_routed_law(folder: Path) -> None:
    def models(ns: tuple[float, ...]) -> pd.DataFrame:
        rows = [(n, e, r) for n in ns for e in (8, 32, 128) for r in ("Hash", "RL-R", "S-Base")]
        rows += [(n, 1, "Dense") for n in ns]
        frame = pd.DataFrame(rows, columns=["N", "num_experts", "router_type"])
        loss = 1.2 + 1.0 * (frame["N"] / 1e8) ** -0.3 * frame["num_experts"] ** -0.08
        return frame.assign(k=1, routing_frequency=0.5, domain="c4", D=np.nan, loss=loss)

    keep(folder, "p7_clark_moe", models((1.5e7, 3e7, 6e7, 1.3e8)))
    query = asked(folder, "p7_clark_moe", models((3e8,)), ["loss"])
    found = answer(folder, "p7", "p7_clark_moe.query.csv")
    np.testing.assert_allclose(found["loss"], query["loss"], rtol=0.02)


def test_a_table_that_is_absent_is_left_out(folder: Path) -> None:
    assert tables.tables() == {}
    assert scores.score_tables() == {}
    assert level_families.families() == {}
    assert predict_all(folder, WAY, []) == []


def test_development_rows_are_scored_and_never_fitted(folder: Path) -> None:
    keep(folder, "p3_dmsl7_xscale", pd.concat([mixtures(9, 5e7), mixtures(9, 1e8)]))
    keep(folder, tables.DEVELOPMENT, mixtures(5, 3e8))
    design, found = splits.splits_of(tables.tables()["p3"], 3)
    new = design.n_params == 3e8
    assert new.sum() == 5
    assert not any(part.train[new].any() for parts in found.values() for part in parts)
    asked_new = [name for name, parts in found.items() if any(p.test[new].any() for p in parts)]
    assert asked_new == ["<= 100M -> 300M (development)"]
    assert len(tables.tables()["p3"].load()) == 18


def test_the_report_has_every_figure(folder: Path) -> None:
    keep(folder, "p5_edmsl4", pd.concat([mixtures(9, n) for n in (5e7, 1e8, 2e8)]))
    rows = compare(["transfer"], "p5", 3, level=False, quick=False)
    assert [row["split"] for row in rows] == [
        "held mixtures",
        "<= 50M -> 100M",
        "<= 50M -> 200M",
        "<= 100M -> 200M",
    ]
    needed = {"mre", "bias", "mixture_r2", "rho", "regret", "coverage", "reach", "cpu_seconds"}
    assert all(needed | {"by_reach"} <= set(row) for row in rows)
    assert rows[-1]["mre"] < 2


def test_scales_near_their_neighbour_are_one() -> None:
    scales = np.array([100.0, 48, 52, 107, 66, 117, 540])
    assert splits.scale_groups(scales).tolist() == [2, 0, 0, 2, 1, 2, 3]


def test_figures_of_a_prediction_that_is_two_percent_high() -> None:
    n, ones = np.array([1e8, 1e8, 4e8, 4e8]), np.ones((4, 1))
    d = np.array([1e10, 2e10, 1e10, 4e10])
    losses = np.array([[3.0], [2.9], [2.8], [2.7]])
    design = Design(list("abcd"), ["all"], ["x"], ones, n, n, d, losses)
    test = n > 1e8
    guess = 1.02 * losses[test]
    ends = (np.array([[2.8], [2.71]]), np.array([[3.0], [2.8]]))
    row = splits.figures(design, [(Split("x", 0, ~test, test), guess, ends)])
    assert row["mre"] == pytest.approx(2.0)
    assert row["bias"] == pytest.approx(2.0)
    assert row["coverage"] == 0.5
    assert row["reach"] == pytest.approx((2 + 8) / 2)
    by_reach = row["by_reach"]
    assert {name: part["losses"] for name, part in by_reach.items()} == {"1-3": 1, "3-10": 1}
    assert by_reach["1-3"]["coverage"] == 1.0


def test_repeats_are_worth_less_and_less() -> None:
    used = np.array([0.5, 1.0, 2.0, 1e6])
    found = effective(used, np.ones(4), 15.0)
    np.testing.assert_allclose(found[:2], [0.5, 1.0])
    assert found[2] == pytest.approx(1 + 15 * (1 - np.exp(-1 / 15)))
    assert found[3] == pytest.approx(16.0)


@pytest.mark.parametrize("excess", [False, True])
def test_the_law_of_repeats_finds_what_they_are_worth(excess: bool) -> None:
    frame = repeated((5e7, 1e8, 2e8, 4e8))
    n, d, unique, loss = (frame[c].to_numpy() for c in ("N", "D", "unique_tokens", "loss"))
    found = fit_repeated(n, d, unique, loss, excess=excess)
    assert found.repeats == pytest.approx(8.0, rel=0.5)
    np.testing.assert_allclose(found.predict(n, d, unique), loss, rtol=0.02)
    low, high = found.ends(loss)
    assert (low < loss).all()
    assert (loss < high).all()
    assert repetition.HALF_WIDTH * found.noise == pytest.approx(float(np.log(high / loss)[0]))


def test_a_family_is_cut_between_its_sizes(folder: Path) -> None:
    keep(folder, "p14_gemstones", SMALL.assign(domain="dclm"))
    [member] = level_families.families()["Gemstones"]
    small, large, where = member.cut()
    assert where == "<= 100M -> 400M"
    assert small.n_params.max() < large.n_params.min()
    for law in level_families.LAWS[:2]:
        row = level_families.row_of("Gemstones", member, law, {})
        assert row["mre"] < 2
        assert row["losses"] == 8


def test_a_prior_leaves_its_family_out() -> None:
    bank = {name: np.full(5, value) for name, value in (("a", 0.0), ("b", 1.0), ("c", 9.0))}
    middle, spread = level_families.prior_without(bank, "c")
    np.testing.assert_allclose(middle, 0.5)
    np.testing.assert_allclose(spread, 1.8 * np.std([0, 1], ddof=1))


REAL = {"p11": (96, 24, 110), "p16": (191, 1, 1), "p19-comma": (77, 1, 1), "p14": (665, 1, 2)}


@pytest.mark.parametrize("name", list(REAL))
def test_public_tables_are_read_whole(name: str) -> None:
    table = tables.tables().get(name)
    if table is None:
        pytest.skip(f"{name} is not on this machine")
    design, (runs, most_domains, targets) = table.load(), REAL[name]
    assert design.losses.shape == (runs, targets)
    assert len(design.domains) <= most_domains
    assert np.isfinite(design.losses).all()
