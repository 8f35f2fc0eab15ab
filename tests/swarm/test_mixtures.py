"""Tables of ratios: what is written is read back the same, by us and by plain readers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from source_trees import flat, nested

from olmo_mixlaw.errors import MixlawError
from olmo_mixlaw.runs.importers import two_files
from olmo_mixlaw.swarm.draws import Draw, draw
from olmo_mixlaw.swarm.limits import limits_of
from olmo_mixlaw.swarm.mixtures import name_of, new_names, ratios_csv, read_mixtures
from olmo_mixlaw.swarm.sources import SourceTree


def table(folder: Path, text: str) -> Path:
    path = folder / "ratios.csv"
    path.write_text(text, encoding="utf-8")
    return path


def some(tree: SourceTree, n: int = 12) -> np.ndarray:
    return draw(n, tree.prior, limits_of(tree, least_ratio=0.002), Draw(apart=0.001))


def test_a_table_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    tree = nested()
    ratios = some(tree)
    ids = new_names(12, ())
    path = table(tmp_path, ratios_csv(ids, tree.names, ratios, "swarm"))
    for place in (path, tmp_path):
        found = read_mixtures(place, tree)
        assert (found.ids, found.missing) == (ids, ())
        np.testing.assert_array_equal(found.ratios, ratios)


def test_a_table_of_leaves_is_one_of_units(tmp_path: Path) -> None:
    tree = nested()
    ratios = some(tree)
    text = ratios_csv(new_names(12, ()), tree.leaf_names, tree.expand(ratios), "swarm")
    np.testing.assert_allclose(read_mixtures(table(tmp_path, text), tree).ratios, ratios, atol=1e-9)
    header, rest = text.split("\n", 1)
    columns = header.split(",")
    high, low = columns.index("web:games:high"), columns.index("web:games:low")
    columns[high], columns[low] = columns[low], columns[high]
    with pytest.raises(MixlawError, match=r"line \d+: web:games:\w+: is pinned to 0.\d+ of web:g"):
        read_mixtures(table(tmp_path, ",".join(columns) + "\n" + rest), tree)


def test_fit_reads_the_table_beside_one_of_metrics(tmp_path: Path) -> None:
    tree = flat([6.0, 3.0, 1.0])
    ratios, ids = some(tree), new_names(12, ())
    available = np.array([600.0, np.inf, 100.0])
    path = table(tmp_path, ratios_csv(ids, tree.names, ratios, "swarm", available))
    rows = [f"{run},{2 + 0.1 * i},{3 - 0.1 * i}" for i, run in enumerate(reversed(ids))]
    (tmp_path / "metrics.csv").write_text("\n".join(["run,arc_bpb,s0_bpb", *rows]))
    read = two_files(path, tmp_path / "metrics.csv", n_params=1e6, n_tokens=1e7)
    design = read.design()
    assert design.domains == ["s0", "s1", "s2"]
    order = [design.run_ids.index(run) for run in ids]
    np.testing.assert_allclose(np.asarray(design.ratios)[order], ratios, atol=1e-12)
    np.testing.assert_array_equal(design.available[0], available)


def test_a_plain_reader_finds_the_ratios() -> None:
    tree = flat([6.0, 3.0, 1.0])
    ratios = some(tree)
    rows = list(csv.DictReader(io.StringIO(ratios_csv(new_names(12, ()), tree.names, ratios, "a"))))
    assert [row["run"] for row in rows] == [name_of(i) for i in range(12)]
    assert rows[3]["name"] == "a-m0003"
    assert [int(row["index"]) for row in rows] == list(range(12))
    values = [[float(row[name]) for name in tree.names] for row in rows]
    np.testing.assert_array_equal(values, ratios)


def test_few_digits_are_rescaled_and_a_source_without_a_column_is_named(tmp_path: Path) -> None:
    tree = flat([1.0, 1.0, 1.0])
    path = table(tmp_path, "run,s0,s1\na,0.334,0.667\nb,0.25,0.75\n")
    found = read_mixtures(path, tree)
    assert found.missing == ("s2",)
    np.testing.assert_allclose(found.ratios.sum(1), 1, atol=1e-15)
    np.testing.assert_array_equal(found.ratios[1], [0.25, 0.75, 0.0])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run,s0,s9\na,0.5,0.5\n", "line 1: unknown source 's9'; did you mean"),
        ("run,s0,s1\na,0.5,0.4\n", "line 2: the ratios sum to 0.9, not 1"),
        ("run,s0,s1\na,1.5,-0.5\n", "line 2, column 's1': -0.5: a ratio is 0 or above"),
        ("run,s0,s1\na,0.5,half\n", "line 2, column 's1': 'half': is not a number"),
        ("run,s0,s1\na,0.5,0.5\na,0.4,0.6\n", "run: two mixtures are called 'a'"),
        ("run,s0,s1\n", "holds no mixtures"),
    ],
)
def test_a_table_with_a_mistake_is_refused_naming_its_line(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(MixlawError, match=problem):
        read_mixtures(table(tmp_path, text), flat([1.0, 1.0]))


def test_new_names_go_on_after_those_taken() -> None:
    assert new_names(3, ()) == ("m0000", "m0001", "m0002")
    assert new_names(4, ("old", "m0002")) == ("old", "m0002", "m0003", "m0004")


def test_columns_of_a_table_of_runs_are_taken_and_its_others_are_not(tmp_path: Path) -> None:
    path = table(tmp_path, "run_id,n_params,w_s0,w_s1,price\na,190e6,0.25,0.75,3e19\n")
    found = read_mixtures(path, flat([1e9, 1e9]))
    assert found.ids == ("a",)
    np.testing.assert_array_equal(found.ratios, [[0.25, 0.75]])
