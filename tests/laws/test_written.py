"""The formula that `fit` prints, with the parameters beside it, gives what the law predicts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from law_tables import grid, transfer_losses, with_losses

from olmo_mixlaw.laws import fit

Values = dict[str, np.ndarray]


def added(p: Values, n: float, d: float) -> float:
    return p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * d ** -p["beta"]


def modulated(p: Values, n: float, d: float, h: np.ndarray) -> float:
    s = (p["T"] * h ** p["g"]).sum()
    data = p["B"] * d ** -p["beta"] * s ** -p["c"]
    return p["E"] + p["G"] * s ** -p["a"] + p["A"] * n ** -p["alpha"] * s ** -p["b"] + data


# As the printed text reads, N and D over what it divides them by.
READ: dict[str, Callable[[Values, float, float, np.ndarray], float]] = {
    "no_mixture": lambda p, n, d, h: added(p, n, d),
    "transfer": lambda p, n, d, h: (
        p["E"] + p["A"] * n ** -p["alpha"] + p["B"] * (d * (p["T"] * h).sum()) ** -p["beta"]
    ),
    "power_transfer": lambda p, n, d, h: (
        p["E"]
        + p["A"] * n ** -p["alpha"]
        + p["B"] * (d * (p["T"] * h ** p["g"]).sum()) ** -p["beta"]
    ),
    "two_pool": lambda p, n, d, h: (
        p["E"]
        + p["A"] * n ** -p["alpha"] * (p["P"] * h).sum() ** -p["gamma"]
        + p["B"] * (d * (p["T"] * h).sum()) ** -p["beta"]
    ),
    "modulated": modulated,
    "additive": lambda p, n, d, h: added(p, n, d) + 1 / (p["C"] * h ** p["gamma"]).sum(),
    "joint": lambda p, n, d, h: (
        p["E"]
        + 1 / (p["C"] * h ** p["gamma"]).sum()
        + (p["a"] * h).sum() ** p["mu"] * n ** -p["alpha"]
        + (p["b"] * h).sum() ** p["nu"] * d ** -p["beta"]
    ),
    "interaction": lambda p, n, d, h: (
        p["E"] + 1 / (p["C"] * h ** p["gamma"] * n ** p["nu"]).sum() + p["B"] * d ** -p["beta"]
    ),
    "exponential": lambda p, n, d, h: added(p, n, d) + np.exp((p["t"] * h).sum()),
    "log_linear": lambda p, n, d, h: p["E"] + np.exp((p["t"] * h).sum()),
    "bimix": lambda p, n, d, h: h[0] ** -p["a"][0] * (p["B"] * d ** -p["b"] + p["C"]),
}


def unit(text: str, name: str) -> float:
    found = re.search(rf"\({name}/([-+.e0-9]+)\)", text)
    return float(found[1]) if found else 1.0


@pytest.mark.parametrize("law", READ)
def test_the_printed_formula_is_the_law(law: str) -> None:
    design = transfer_losses(grid(sizes=3, mixtures=8, budgets=2), noise=0.002)
    fitted = fit(law, design)
    text = fitted.law.written(fitted.scene)
    shown = fitted.parameters
    values: Values = {}
    for row in shown[shown["target"] == "web"].itertuples():
        name = row.parameter.partition("[")[0]
        values[name] = np.append(values.get(name, np.empty(0)), row.value)
    values = {k: v if len(v) > 1 else v[0] for k, v in values.items()}
    h = np.array([0.4, 0.3, 0.2, 0.1])
    got = READ[law](values, 3e7 / unit(text, "N"), 1.3e9 / unit(text, "D"), h)
    assert got == pytest.approx(fitted.predict(h, 3e7, 1.3e9)[0, 0], rel=1e-4)


def test_a_term_that_the_table_lacks_is_said_to_be_none() -> None:
    fitted = fit("additive", transfer_losses(grid(sizes=1, mixtures=12), noise=0.002))
    text = fitted.law.written(fitted.scene)
    assert "N' = 1, without a term of its own: the table's sizes don't vary" in text
    assert "D' = 1, without a term of its own: the table's budgets don't vary" in text
    bare = replace(fitted.scene, d_ref=float("nan"))
    assert "the table's budgets are not known" in fitted.law.written(bare)


def test_parameters_carry_the_unit_of_the_table() -> None:
    design = replace(transfer_losses(grid(mixtures=8)), unit="bits_per_byte")
    units = set(fit("additive", design).parameters["unit"])
    assert {"bits/byte", "1/(bits/byte)", "1"} == units
    assert not any("nats" in unit for unit in units)
    assert fit("additive", with_losses(design, design.losses)).unit == "nats"
