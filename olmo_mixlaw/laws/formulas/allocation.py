"""Divide a model among power laws: the inner problem of the competition laws.

    min_x sum_i h_i c_i x_i^-b_i   s.t.  sum_i x_i = N + (K - 1) H,  x_i >= H

H is a head that all K domains have in common, counted once in N (arXiv 2606.08167, Section 3). With
C the right side, x_i = max(H, (h_i b_i c_i / lambda)^(1/(1+b_i))). With u_i = log(h_i b_i c_i) and
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
    """log x (..., K), which x are above H, and where the slope of mu goes.

    `d mu = sum_j omega_j d u_j + ... + by_head d log H`, with omega_j = x_j p_j / sum_active x p
    (..., K), p = 1/(1+b), and `by_head` (..., 1).
    """

    log_x: np.ndarray
    active: np.ndarray
    omega: np.ndarray
    p: np.ndarray
    mu: np.ndarray
    by_head: np.ndarray


def allocate(
    u: np.ndarray, b: np.ndarray, log_head: np.ndarray | float, log_size: np.ndarray
) -> Allocation:
    """Solve the dual for a batch: u (..., K), b broadcastable, log H and log N (..., 1).

    `u` may be -inf (a domain with no share), which then has the head alone. Needs H < N.
    """
    head = np.exp(log_head)
    log_capacity = np.log(np.exp(log_size) + (u.shape[-1] - 1) * head)
    p = 1 / (1 + b)
    # Start where the steepest domain alone would take all: F is then positive, and Newton on a
    # convex decreasing function goes up to the root without overshooting. No x exceeds C there.
    finite = np.where(np.isfinite(u), u, -1e6)
    mu = (finite - log_capacity / p).max(-1, keepdims=True)
    top = finite * p
    for _ in range(MOST_STEPS):
        z = top - mu * p
        active = z > log_head
        log_x = np.where(active, z, log_head)
        x = np.exp(log_x)
        total = x.sum(-1, keepdims=True)
        weight = np.where(active, x * p, 0.0)
        fall = weight.sum(-1, keepdims=True)
        value = np.log(total) - log_capacity
        if np.abs(value).max() < TOLERANCE:
            break
        # All at the head: go down until one is not.
        slope = fall / total
        step = np.where(slope > 1e-12, value / np.maximum(slope, 1e-12), -2.0)
        mu = mu + np.clip(step, -30, 30)
    fall = np.maximum(fall, 1e-300)
    # A greater head takes from the domains above it, which have it in common.
    by_head = (1 - active.sum(-1, keepdims=True)) * head / fall
    return Allocation(log_x, active, weight / fall, np.broadcast_to(p, log_x.shape), mu, by_head)
