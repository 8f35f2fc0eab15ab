"""Losses of sparse language models: which law reaches the next size, and what is their N?

`python benchmarks/routed.py` holds out the largest dense size, then the one below it, and prints
the error of each law. `predict_routed` is what a held-out file of larger models is answered with:
the law with the least of those errors, fitted to all answered rows. Then the package's own
`no_mixture` with N as total, active or effective count, on two tables with the largest dense size
held out.

    log(L - F) = d + a log N + b_r log E^ + c_r log N log E^
    1/E^ = 1/(E - 1 + 1/(1/E_start - 1/E_max)) + 1/E_max            (arXiv 2202.01169)

`unified` is the published law, F = 0; `floor` fits F > 0: a loss that no size and no number of
experts takes away. b, c, E_start, E_max are a router's own; a dense model has log E^ = 0.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import record
from scipy.optimize import least_squares

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws import fit
from olmo_mixlaw.runs import Design

DATA = Path(__file__).resolve().parent / "data"
ROUTERS = ["Hash", "RL-R", "S-Base"]
LAWS = ("unified", "floor")
# Models as the table's queries are: one expert a token, every other layer routed.
PLAIN_K, PLAIN_FREQUENCY = 1, 0.5
# Noise of log loss between seeds in the table, and where an error stops counting as its square.
NOISE, BEND = 0.004, 2.0
N_REF = 1e8
# Priors (mean, sd) of the slopes, of log E_start and log(E_max - E_start), and of F as a share of
# the least loss. Their widths were set on the two held sizes that `held_out` scores.
SLOPE_N, OFFSET = (-0.2, 0.1), (0.4, 2.0)
SLOPE_E, CROSS = (-0.12, 0.1), (0.01, 0.005)
START, REACH = (float(np.log(1.5)), 0.7), (float(np.log(300.0)), 1.0)
FLOOR_SHARE = (0.6, 0.2)


@dataclass(frozen=True)
class Routed:
    """One domain's fit: `theta` is [d, a, log F, then b, c, log E_start, log(E_max - E_start)
    for each router]; `law` is one of `LAWS`."""

    law: str
    theta: np.ndarray

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Losses in nats for rows with N, num_experts and router_type."""
        return np.exp(_log_loss(self.theta, self.law, *_columns(frame)))


def plain(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with one expert a token in every other layer, which the law speaks of."""
    return frame[(frame["k"] == PLAIN_K) & (frame["routing_frequency"] == PLAIN_FREQUENCY)]


def fit_routed(frame: pd.DataFrame, law: str) -> Routed:
    """Fit one domain's rows (columns N, num_experts, router_type, loss), MAP with Huber's loss."""
    columns = _columns(frame)
    target = np.log(frame["loss"].to_numpy(float))
    routers = len(ROUTERS)
    lowest = float(np.exp(target.min()))
    prior = np.array(
        [
            OFFSET,
            SLOPE_N,
            (np.log(FLOOR_SHARE[0] * lowest), FLOOR_SHARE[1]),
            *[SLOPE_E, CROSS, START, REACH] * routers,
        ]
    )

    def residuals(theta: np.ndarray) -> np.ndarray:
        error = (_log_loss(theta, law, *columns) - target) / NOISE
        size = np.abs(error)
        bent = np.sqrt(BEND * np.maximum(2 * size - BEND, 0.0))
        return np.r_[
            np.sign(error) * np.where(size > BEND, bent, size), (theta - prior[:, 0]) / prior[:, 1]
        ]

    return Routed(law, least_squares(residuals, prior[:, 0]).x)


def _columns(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log N, number of experts, index of the router (-1: dense)."""
    router = frame["router_type"].map({name: i for i, name in enumerate(ROUTERS)}).fillna(-1)
    return (
        np.log(frame["N"].to_numpy(float) / N_REF),
        frame["num_experts"].to_numpy(float),
        router.to_numpy(int),
    )


def _log_loss(
    theta: np.ndarray, law: str, log_n: np.ndarray, experts: np.ndarray, router: np.ndarray
) -> np.ndarray:
    slope, cross, start, reach = theta[3:].reshape(len(ROUTERS), 4)[np.maximum(router, 0)].T
    first = np.exp(start)
    last = first + np.exp(reach)
    effective = 1 / (1 / (experts - 1 + 1 / (1 / first - 1 / last)) + 1 / last)
    log_e = np.where(router >= 0, np.log(effective), 0.0)
    bilinear = theta[0] + theta[1] * log_n + (slope + cross * log_n) * log_e
    return bilinear if law == "unified" else np.logaddexp(bilinear, theta[2])


def held_out(frame: pd.DataFrame, largest: int = 2) -> pd.DataFrame:
    """Mean relative error (%) on each of the `largest` sizes, fitted to the sizes below it.

    A row a (held size, law, domain), and the bias beside the error.
    """
    frame = plain(frame)
    rows = []
    for size in np.sort(frame["N"].unique())[-largest:]:
        for law in LAWS:
            for domain, part in frame.groupby("domain"):
                known, held = part[part["N"] < size], part[part["N"] == size]
                error = fit_routed(known, law).predict(held) / held["loss"].to_numpy() - 1
                rows.append(
                    (
                        int(size),
                        law,
                        domain,
                        len(held),
                        100 * np.abs(error).mean(),
                        100 * error.mean(),
                    )
                )
    return pd.DataFrame(rows, columns=["held_size", "law", "domain", "models", "mre", "bias"])


def choose(errors: pd.DataFrame) -> str:
    """The law with the least error, sizes and domains counted alike."""
    return str(errors.groupby("law")["mre"].mean().idxmin())


def predict_routed(frame: pd.DataFrame, query: pd.DataFrame) -> np.ndarray:
    """Losses (rows of `query`,) from the answered rows of `frame`, in the query's order.

    Raises `ValueError` for a query row of another kind (k, routing frequency) or domain, `FitError`
    for fewer than three dense sizes: two are held out in turn.
    """
    sizes = plain(frame)["N"].nunique()
    if sizes < 3:
        raise FitError(f"the routed laws need three dense sizes; the table has {sizes}")
    if len(plain(query)) != len(query):
        raise ValueError("the query has a model with k other than 1 or routing frequency not .5")
    unknown = set(query["domain"]) - set(frame["domain"])
    if unknown:
        raise ValueError(f"the query's domain {sorted(unknown)[0]!r} has no answered row")
    law = choose(held_out(frame))
    known, loss = plain(frame), np.full(len(query), np.nan)
    for domain in query["domain"].unique():
        some = (query["domain"] == domain).to_numpy()
        fitted = fit_routed(known[known["domain"] == domain], law)
        loss[some] = fitted.predict(query[some])
    return loss


def capacity_errors() -> list[dict[str, object]]:
    """Error (%) on the models of the largest dense size, fitted to the others, by meaning of N."""
    routed = pd.read_csv(DATA / "p7_clark_moe.csv.gz")
    routed = plain(routed)[lambda f: (f["seed"] == 42) & (f["router_type"] == "S-Base")]
    wide = routed.pivot_table(
        index=["N", "total_parameter_count"], columns="domain", values="loss"
    ).reset_index()
    sparse = pd.read_csv(DATA / "moe_sparsity.csv.gz")
    ones = np.ones(len(wide))
    tables = {
        "routed, S-Base (Clark et al.)": (
            wide["total_parameter_count"],
            wide["N"],
            ones,
            wide.iloc[:, 2:],
            wide["N"],
        ),
        "sparse (active-sl)": (
            sparse["P"] * 1e9,
            sparse["N_active"] * 1e9,
            sparse["D2"] * 1e9,
            sparse[["loss"]],
            sparse["N_dense"],
        ),
    }
    rows: list[dict[str, object]] = []
    for name, (total, active, tokens, losses, dense) in tables.items():
        design = Design(
            [f"r{i}" for i in range(len(losses))],
            ["all"],
            list(losses.columns),
            np.ones((len(losses), 1)),
            np.asarray(total, float),
            np.asarray(active, float),
            np.asarray(tokens, float),
            losses.to_numpy(float),
        )
        held = (dense >= dense.max() * 0.999).to_numpy()
        test = design.take(held)
        for capacity in ("total", "active", "effective"):
            fitted = fit("no_mixture", design.take(~held), capacity=capacity)
            guess = fitted.predict(test.ratios, test.n_params, test.n_tokens, test.n_active)
            error = 100 * float(np.nanmean(np.abs(guess / test.losses - 1)))
            rows.append({"table": name, "capacity": capacity, "rho": fitted.size.rho, "mre": error})
    return rows


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    frame = pd.read_csv(DATA / "p7_clark_moe.csv.gz")
    errors = held_out(frame)
    table = errors.pivot(index=["held_size", "law"], columns="domain", values="mre")
    table["mean"] = table.mean(axis=1)
    print("mean relative error (%) of the held size, fitted to smaller ones")
    print(table.round(2).to_string())
    print(f"\nchoice: {choose(errors)}")
    query = pd.read_csv(DATA / "p7_clark_moe.query.csv.gz")
    guess = query.assign(loss=predict_routed(frame, query))
    at = guess[guess["domain"] == "c4"].pivot(
        index="num_experts", columns="router_type", values="loss"
    )
    print(f"\npredicted c4 loss at {query['N'].iloc[0] / 1e9:.2f}B active parameters")
    print(at.round(3).to_string(na_rep="-"))
    capacity = capacity_errors()
    print("\nerror (%) on the largest dense size, by what the law's N is")
    print(pd.DataFrame(capacity).round(3).to_string(index=False))
    figures = {"routed": errors.to_dict("records"), "capacity": capacity}
    record.save("routed", figures, choice=choose(errors))


if __name__ == "__main__":
    main()
