"""How near two computations of one thing must be: libraries add in another order, and kernels
differ between processors, so that nothing is equal to the bit but what the same code computes."""

from __future__ import annotations

import torch
from torch import Tensor

# Of logits, in float32 eps of the largest. Measured on the models of `checkpoints`: one of them is
# up to 40 from itself in float64, two libraries are up to 5 apart, and the mildest wrong export
# (norms with a tenth of their epsilon) is 800 off. Float64 would say no more: OLMo and
# transformers both norm and rotate in float32.
LOGITS = 200
# Of scores, relative: means and sums of log-likelihoods, each right to about 1e-6 in float32.
SCORES = 1e-5


def assert_same_logits(found: Tensor, expected: Tensor) -> None:
    """Raises `AssertionError` where two libraries differ by more than float32's rounding."""
    largest = float(expected.abs().max())
    atol = LOGITS * torch.finfo(torch.float32).eps * largest
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
