"""Log-probabilities of chosen tokens, without ever holding the logits of a whole batch.

The vocabulary is taken in tiles that stay in the processor's cache, and the normaliser is
carried from tile to tile: `logsumexp(a, b) = max + log(exp(a - max) + exp(b - max))`. With a
small model and a large vocabulary that is over twice as fast as a softmax over all logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

ROWS_AT_ONCE = 512
TILE_FLOATS = {"cpu": 2**19}  # of logits at once: 2 MiB, about a core's own cache
GPU_TILE_FLOATS = 2**26
NARROWEST_TILE = 1024


@dataclass(frozen=True)
class Head:
    """What makes logits of a model's last states (N, d): `weight` (V, d) and what follows it.

    Logits are `scale * (states @ weight.T + bias)`, then `cap * tanh(logits / cap)` if `cap`.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    cap: float | None = None

    def logits(
        self,
        states: torch.Tensor,
        start: int = 0,
        end: int | None = None,
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (..., end - start) of the tokens from `start` up to `end`.

        `into` is memory for them, of the weights' type, where `states` are (N, d).
        """
        import torch

        found = torch.matmul(states, self.weight[start:end].T, out=into)
        if self.bias is not None:
            found += self.bias[start:end]
        if self.scale != 1.0:
            found *= self.scale
        if self.cap is not None:
            found.div_(self.cap).tanh_().mul_(self.cap)
        return found


def score_tokens(
    head: Head | None, states: torch.Tensor, targets: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Nats (N,) of each of `targets` after `states` (N, d), and whether it is the likeliest.

    Of equally likely tokens the first in the vocabulary counts as the likeliest. Without a
    head, `states` are the logits themselves.
    """
    import torch

    nats, likeliest = [], []
    for begin in range(0, len(targets), ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        found, best = _score_rows(head, states[rows], targets[rows])
        nats.append(found)
        likeliest.append(best)
    if not nats:
        return np.zeros(0), np.zeros(0, dtype=bool)
    return torch.cat(nats).double().cpu().numpy(), torch.cat(likeliest).cpu().numpy()


def _score_rows(
    head: Head | None, states: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    size = states.shape[-1] if head is None else len(head.weight)
    floats = TILE_FLOATS.get(states.device.type, GPU_TILE_FLOATS)
    width = min(size, max(NARROWEST_TILE, floats // len(targets)))
    # Rows by the tile that their target is in, so that each is looked up once.
    order = torch.argsort(targets)
    starts = range(0, size, width)
    bounds = torch.searchsorted(
        targets[order], torch.tensor([*starts, size], device=targets.device)
    ).tolist()
    n = len(targets)
    largest = torch.full((n,), -torch.inf, device=states.device)
    total = torch.zeros(n, device=states.device)
    chosen = torch.zeros(n, device=states.device)
    first = torch.zeros(n, dtype=torch.bool, device=states.device)
    # Memory that is asked for anew is cleared by the system first, which takes longer than sums.
    memory = torch.empty(n * width, dtype=states.dtype, device=states.device)
    for tile, start in enumerate(starts):
        end = min(start + width, size)
        into = memory[: n * (end - start)].view(n, end - start)
        if head is None:
            into.copy_(states[:, start:end])
        else:
            head.logits(states, start, end, into)
        logits = into.float()
        inside = order[bounds[tile] : bounds[tile + 1]]
        if len(inside):
            there, wanted = logits[inside], targets[inside] - start
            chosen[inside] = there.gather(1, wanted[:, None])[:, 0]
            first[inside] = (there.argmax(dim=-1) == wanted) & (chosen[inside] > largest[inside])
        before, largest = largest, torch.maximum(largest, logits.amax(dim=-1))
        total = total * torch.exp(before - largest)
        total += logits.sub_(largest[:, None]).exp_().sum(dim=-1)
    return chosen - largest - torch.log(total), first & (chosen == largest)
