"""Tables that others wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from olmo_mixlaw.errors import ConfigError, DataError, UnknownNameError
from olmo_mixlaw.runs.importers import load_table, two_files, wide_table


@pytest.fixture
def swarm(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    ratios = rng.dirichlet(np.ones(3), 5).round(3)
    frame = pd.DataFrame(ratios, columns=["web", "code", "wiki"])
    frame.insert(0, "run", [f"r{i}" for i in range(5)])
    losses = pd.DataFrame(
        {"run": frame["run"], "web": rng.uniform(2, 3, 5), "essays": rng.uniform(2, 3, 5)}
    )
    frame.to_csv(tmp_path / "ratios.csv", index=False)
    losses.iloc[::-1].to_csv(tmp_path / "metrics.csv", index=False)
    frame.rename(columns={"web": "p_web", "code": "p_code", "wiki": "p_wiki"}).assign(
        loss_web=losses["web"], n=[1e6] * 5
    ).to_csv(tmp_path / "wide.csv", index=False)
    return tmp_path


def test_olmix_files_are_joined_by_run(swarm: Path) -> None:
    table = two_files(swarm / "ratios.csv", swarm / "metrics.csv", n_params=1e6)
    assert table.domains == ["web", "code", "wiki"]
    assert table.targets == ["web", "essays"]
    losses = pd.read_csv(swarm / "metrics.csv").set_index("run")
    design = table.design()
    for run, row in zip(design.run_ids, design.losses, strict=True):
        np.testing.assert_allclose(row, losses.loc[run].to_numpy())
    np.testing.assert_allclose(design.ratios.sum(1), 1, atol=1e-9)


def test_regmix_prefixes_are_taken_off(tmp_path: Path) -> None:
    pd.DataFrame(
        {
            "index": [1, 2, 3],
            "train_the_pile_arxiv": [0.2, 0.5, 0.7],
            "train_the_pile_github": [0.8, 0.5, 0.3],
        }
    ).to_csv(tmp_path / "m.csv", index=False)
    pd.DataFrame(
        {
            "index": [1, 2, 3],
            "metric/the_pile_arxiv_val/loss": [3.0, 2.9, 2.8],
            "valid_the_pile_github": [2.0, 2.1, 2.2],
        }
    ).to_csv(tmp_path / "l.csv", index=False)
    table = two_files(tmp_path / "m.csv", tmp_path / "l.csv")
    assert table.domains == table.targets == ["the_pile_arxiv", "the_pile_github"]


def test_a_wide_table_is_read_by_its_yaml(swarm: Path) -> None:
    (swarm / "wide.yaml").write_text(
        "file: wide.csv\nrun_id: run\nn_params: n\nn_tokens: 2e7\nunit: bits\n"
        "weights: {web: p_web, code: p_code, wiki: p_wiki}\nlosses: {web: loss_web}\n"
    )
    design = wide_table(swarm / "wide.yaml").design()
    assert design.n_params[0] == 1e6
    assert design.n_tokens[0] == 2e7
    np.testing.assert_allclose(
        design.losses[:, 0], pd.read_csv(swarm / "wide.csv")["loss_web"] * np.log(2)
    )


def test_a_wide_table_in_bits_a_byte_keeps_its_unit(swarm: Path) -> None:
    (swarm / "wide.yaml").write_text(
        "file: wide.csv\nunit: bits_per_byte\nweights: {web: p_web, code: p_code, wiki: p_wiki}\n"
        "losses: {web: loss_web}\n"
    )
    design = wide_table(swarm / "wide.yaml").design()
    assert design.unit == "bits_per_byte"
    assert not design.active_known
    np.testing.assert_allclose(design.losses[:, 0], pd.read_csv(swarm / "wide.csv")["loss_web"])


def test_a_wide_table_says_what_tokens_domains_had(swarm: Path) -> None:
    frame = pd.read_csv(swarm / "wide.csv")
    frame["had"] = [1.0, 2.0, np.nan, 4.0, 5.0]
    frame.to_csv(swarm / "wide.csv", index=False)
    (swarm / "wide.yaml").write_text(
        "file: wide.csv\nrun_id: run\nn_tokens: 9\ntokens_unit: 1e6\n"
        "weights: {web: p_web, code: p_code, wiki: p_wiki}\nlosses: {web: loss_web}\n"
        "available: {code: had, wiki: 3}\n"
    )
    table = wide_table(swarm / "wide.yaml")
    had = np.array([1e6, 2e6, np.inf, 4e6, 5e6])
    expected = np.stack([np.full(5, np.inf), had, np.full(5, 3e6)], 1)
    np.testing.assert_array_equal(table.design().available, expected)
    table.save(swarm / "table")
    np.testing.assert_array_equal(load_table(swarm / "table").design().available, expected)


def test_a_swarm_says_what_tokens_domains_had(swarm: Path) -> None:
    frame = pd.read_csv(swarm / "ratios.csv").rename(columns={"web": "train_web"})
    tokens = {"available_wiki": 7e8, "available_web": np.arange(1.0, 6) * 1e9}
    tokens |= {"available_code": np.nan, "none": 0.0, "available_none": 5e9}
    frame.assign(**tokens).to_csv(swarm / "ratios.csv", index=False)
    table = two_files(swarm / "ratios.csv", swarm / "metrics.csv")
    assert table.domains == ["web", "code", "wiki"]
    design = table.design()
    assert design.run_ids == ["r0", "r1", "r2", "r3", "r4"]
    np.testing.assert_array_equal(design.available[:, 0], np.arange(1.0, 6) * 1e9)
    np.testing.assert_array_equal(design.available[:, 1:], np.tile([np.inf, 7e8], (5, 1)))
    plain = two_files(swarm / "ratios.csv", swarm / "metrics.csv").losses
    assert not plain.columns.str.contains("none").any()


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"available_wbe": 1e9}, UnknownNameError, "available_wbe: unknown domain 'wbe'; did you"),
        ({"available_web": 1e9}, DataError, "'available_code' is missing, but 'available_web' is"),
        ({"available_web": [1e9, 0, 1, 1, 1]}, DataError, r"ratios\.csv: line 3, column 'avail"),
        ({"available_web": ["1B"] * 5}, DataError, r"'1B': is not a number; write 1e\+09"),
        ({"available_web": 1e9, "available_train_web": 1e9}, DataError, "a second column of avail"),
    ],
)
def test_wrong_available_tokens_of_a_swarm_are_named(
    swarm: Path, columns: dict, error: type[Exception], message: str
) -> None:
    frame = pd.read_csv(swarm / "ratios.csv")
    frame.assign(**columns).to_csv(swarm / "ratios.csv", index=False)
    with pytest.raises(error, match=message):
        two_files(swarm / "ratios.csv", swarm / "metrics.csv")


def test_mistakes_in_a_yaml_are_named(swarm: Path) -> None:
    good = (
        "file: wide.csv\nweights: {web: p_web, code: p_code, wiki: p_wiki}\n"
        "losses: {web: loss_web}\n"
    )
    frame = pd.read_csv(swarm / "wide.csv")
    bad = {"quiz_acc": 0.5, "sizes": ["1e6", "150M", "1e6", "1e6", "1e6"]}
    bad |= {"gap": ["a", None, "c", "d", "e"]}
    bad |= {"below": [1e6, 1e6, 0, 1e6, 1e6]}
    bad |= {"part": [0.1, "70%", 0.1, 0.1, 0.1], "comma": [2.5, "2,31", 2.1, 2.2, 2.3]}
    frame.assign(**bad).to_csv(swarm / "wide.csv", index=False)
    path = swarm / "w.yaml"
    for text, error, message in (
        (good + "unitt: nats\n", UnknownNameError, "did you mean 'unit'"),
        (
            good + "available: {webb: 1e9}\n",
            UnknownNameError,
            "available: unknown domain 'webb'; did",
        ),
        (
            good + "available: {web: 0}\n",
            ConfigError,
            r"available\.web: '0': must be finite and pos",
        ),
        (good + "available: {web: had}\n", DataError, r"available\.web: 'had' is neither a number"),
        (good + "available: {web: sizes}\n", DataError, "line 3, column 'sizes': '150M'"),
        (
            good + "available: {web: below}\n",
            DataError,
            "line 4, column 'below': 0.* leave the cell",
        ),
        (
            good + "available: {web: n, code: n}\n",
            ConfigError,
            r"available\.code: column 'n' is that",
        ),
        (good + "unit: bytes\n", ConfigError, "'bytes' is none of nats, bits, bits_per_byte"),
        (good.replace("loss_web", "nope"), DataError, "column 'nope' is missing"),
        (good + "n_params: size\n", DataError, "'size' is neither a number nor a column"),
        ("file: wide.csv\n", ConfigError, "weights: is needed"),
        (good + "params_unit: 0\n", ConfigError, "params_unit: must be positive"),
        (
            good + "n_params: nan\n",
            ConfigError,
            r"w\.yaml: n_params: 'nan': must be finite and pos",
        ),
        (good + "n_params: .nan\n", ConfigError, r"w\.yaml: n_params: 'nan': must be finite"),
        (good + "n_tokens: .inf\n", ConfigError, r"w\.yaml: n_tokens: 'inf': must be finite"),
        (good + "n_active: -1\n", ConfigError, r"n_active: '-1': must be finite and positive"),
        (good.replace("p_web", "nan"), ConfigError, r"weights.web: 'nan': must be finite"),
        (good.replace("p_code", "p_web"), ConfigError, r"weights.code: column 'p_web' is that of"),
        (good + "run_id: gap\n", DataError, r"wide\.csv: line 3, column 'gap': nan: is missing"),
        (good + "tokens_unit: -1\n", ConfigError, "tokens_unit: must be positive"),
        (good + "weight_tolerance: 3\n", DataError, "a weight tolerance of 3 is not within"),
        (good.replace("web: loss_web", "web: quiz_acc"), ConfigError, "'quiz_acc' is a score"),
        (good + "n_params: sizes\n", DataError, r"wide\.csv: line 3, column 'sizes': '150M'"),
        (good.replace("p_web", "part"), DataError, r"wide\.csv: line 3, column 'part': '70%'"),
        (good.replace("loss_web", "comma"), DataError, r"wide\.csv: line 3, column 'comma'"),
        (good.replace("wide.csv", "no.csv"), DataError, "no such file"),
    ):
        path.write_text(text)
        with pytest.raises(error, match=message):
            wide_table(path)


def test_a_shipped_description_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_table("moe-sparsity").targets == ["text"]
    with pytest.raises(ConfigError, match=r"--table: .*; did you mean 'moe-sparsity'"):
        load_table("moe-sparsty")
    (tmp_path / "moe-sparsity").mkdir()
    with pytest.raises(DataError, match="moe-sparsity: holds no losses"):
        load_table("moe-sparsity")


def test_a_fold_or_a_split_is_no_domain_and_no_target(swarm: Path) -> None:
    for name in ("ratios.csv", "metrics.csv"):
        frame = pd.read_csv(swarm / name)
        frame.assign(split=[1.5, 2, 3, 4, 5], fold=range(5)).to_csv(swarm / name, index=False)
    table = two_files(swarm / "ratios.csv", swarm / "metrics.csv")
    assert table.domains == ["web", "code", "wiki"]
    assert table.targets == ["web", "essays"]
    assert any("split, fold (bookkeeping)" in note for note in table.notes)


def test_runs_in_one_file_only_are_left_out_aloud(swarm: Path) -> None:
    losses = pd.read_csv(swarm / "metrics.csv")
    whole = two_files(swarm / "ratios.csv", swarm / "metrics.csv").design()
    losses.iloc[1:].to_csv(swarm / "fewer.csv", index=False)
    table = two_files(swarm / "ratios.csv", swarm / "fewer.csv")
    assert table.design().run_ids == ["r0", "r1", "r2", "r3"]
    np.testing.assert_allclose(table.design().losses, whole.losses[:4])
    assert any("1 of 5 runs" in note and "left out: run r4" in note for note in table.notes)
    losses.assign(run=[f"s{i}" for i in range(5)]).to_csv(swarm / "other.csv", index=False)
    with pytest.raises(DataError, match="no run is in both"):
        two_files(swarm / "ratios.csv", swarm / "other.csv")


def test_ways_to_name_a_table_do_not_mix(swarm: Path) -> None:
    with pytest.raises(ConfigError, match="give both"):
        load_table(None, "a.csv", None)
    with pytest.raises(ConfigError, match="give one of them"):
        load_table("t.csv", "a.csv", "b.csv")
