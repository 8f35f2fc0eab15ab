"""Divide a capacity among power laws: the inner problem of the competition laws.

    min_x sum_i h_i c_i x_i^-b_i   s.t.  sum_i x_i = C,  x_i >= H

The solution is x_i = max(H, (h_i b_i c_i / lambda)^(1/(1+b_i))). With u_i = log(h_i b_i c_i) and
mu = log lambda, Newton on the convex, decreasing
F(mu) = log sum_i exp(max(log H, (u_i - mu)/(1+b_i))) - log C needs no bracket and about five steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-12
MOST_STEPS = 60


@dataclass(frozen=True)
class Allocation:
    """log x (..., K), which x are above the floor, and omega (..., K), where mu's slope goes.

    `d mu = sum_j omega_j d(u_j-part) + ...`, omega_j = x_j p_j / sum_active x p, p = 1/(1+b).
    """

    log_x: np.ndarray
    active: np.ndarray
    omega: np.ndarray
    p: np.ndarray
    mu: np.ndarray


def allocate(
    u: np.ndarray, b: np.ndarray, log_floor: float, log_capacity: np.ndarray
) -> Allocation:
    """Solve the dual for a batch: u (..., K), b broadcastable, log C (..., 1).

    `u` may be -inf (a domain with no share), which then stays at the floor. The floor must leave
    room: K exp(log_floor) < C.
    """
    p = 1 / (1 + b)
    # Start where the steepest domain alone would take all: F is then positive, and Newton on a
    # convex decreasing function goes up to the root without overshooting. No x exceeds C there.
    finite = np.where(np.isfinite(u), u, -1e6)
    mu = (finite - log_capacity / p).max(-1, keepdims=True)
    top = finite * p
    for _ in range(MOST_STEPS):
        z = top - mu * p
        active = z > log_floor
        log_x = np.where(active, z, log_floor)
        x = np.exp(log_x)
        total = x.sum(-1, keepdims=True)
        weight = np.where(active, x * p, 0.0)
        fall = weight.sum(-1, keepdims=True)
        value = np.log(total) - log_capacity
        if np.abs(value).max() < TOLERANCE:
            break
        # All at the floor: go down until one is not.
        slope = fall / total
        step = np.where(slope > 1e-12, value / np.maximum(slope, 1e-12), -2.0)
        mu = mu + np.clip(step, -30, 30)
    omega = weight / np.maximum(fall, 1e-300)
    return Allocation(log_x, active, omega, np.broadcast_to(p, log_x.shape), mu)
