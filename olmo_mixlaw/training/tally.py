"""What is told of a run's steps: losses by source, and how evenly experts are used.

The sums of one step are one vector, which the processes add up in one message. Those since the
last row of metrics.csv belong to the trainer's state, so that a resumed run writes the same rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from olmo_mixlaw.mixture import tally
from olmo_mixlaw.mixture.opened import Mixture
from olmo_mixlaw.models.olmo import LOAD_METRICS, moe_layers, moe_metrics


class Tally:
    """Sums of the step at hand and since the last row: losses (K) and predicted tokens (K) by
    source, and tokens by expert (MoE layers x E)."""

    def __init__(self, mixture: Mixture | None, model: nn.Module, device: torch.device) -> None:
        self.mixture = mixture
        self.layers = moe_layers(model)
        self.experts = self.layers[0].config.num_experts if self.layers else 0
        self.n_sources = 0 if mixture is None else len(mixture.labels)
        size = 2 * self.n_sources + len(self.layers) * self.experts
        # Counts are whole numbers far below 2^53, so their sums are exact in any order.
        self.step = torch.zeros(size, dtype=torch.float64, device=device)
        self.sources = torch.arange(self.n_sources, device=device).unsqueeze(1)
        self.of_all = np.zeros(size)
        self.since_row = np.zeros(size)

    @property
    def columns(self) -> list[str]:
        """The columns of metrics.csv."""
        assert self.mixture is not None
        found = tally.columns(self.mixture)
        if self.layers:
            found += [f"moe_{key}" for key in LOAD_METRICS]
            found += [f"moe_{i:02d}_{key}" for i in range(len(self.layers)) for key in LOAD_METRICS]
        return found

    def start_step(self) -> None:
        self.step.zero_()

    def add(self, sources: Tensor, losses: Tensor, kept: Tensor | None = None) -> None:
        """Take in the losses (B, T), in nats, of B examples from `sources` (B).

        Those that are not `kept` (B) have no loss and predict nothing.
        """
        with torch.no_grad():
            by_example = losses.detach().sum(dim=1, dtype=torch.float64)
            predicted = torch.full_like(by_example, losses.shape[1])
            if kept is not None:
                predicted *= kept
            # A product with zeros and ones adds in one order; on a GPU `index_add_` does not.
            belongs = (sources == self.sources).to(torch.float64)
            sums = torch.stack([by_example, predicted]) @ belongs.T
            self.step[: 2 * self.n_sources] += sums.view(-1)

    def add_load(self) -> None:
        """Take in the tokens that each expert of this process had in this step's backward."""
        loads = [layer.take_load() for layer in self.layers]
        if loads:
            none = torch.zeros(self.experts, dtype=torch.int64, device=self.step.device)
            self.step[2 * self.n_sources :] = torch.cat(
                [none if load is None else load for load in loads]
            )

    def end_step(self, of_all: np.ndarray) -> None:
        """Count the step, whose sums over all processes are `of_all`."""
        self.of_all = of_all
        self.since_row += of_all

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return self.since_row.tolist()

    def load_state(self, since_row: list[float]) -> None:
        """Go on from a checkpoint's sums; those of another mixture are left aside."""
        if np.shape(since_row) == self.since_row.shape:
            self.since_row = np.array(since_row)

    def row(self, examples: int, length: int) -> dict[str, Any]:
        """What metrics.csv says of the steps since the last row, after `examples` of the run;
        starts the next row."""
        assert self.mixture is not None
        losses, predicted, load = self._parts(self.since_row)
        self.since_row = np.zeros_like(self.since_row)
        row = tally.row(self.mixture, losses, predicted, examples, length)
        balance = moe_metrics(load)
        return row | {name.replace("/", "_"): value for name, value in balance.items()}

    def shown(self, examples: int, length: int) -> dict[str, float]:
        """What the console and W&B show of this step, after `examples` of the run."""
        losses, predicted, load = self._parts(self.of_all)
        shown = moe_metrics(load)
        if self.mixture is not None:
            shown |= tally.shown(self.mixture, losses, predicted, examples, length)
        return shown

    def _parts(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Losses (K), predicted tokens (K) and load (MoE layers, E) of a vector of sums."""
        losses, predicted, load = np.split(sums, [self.n_sources, 2 * self.n_sources])
        by_layer = torch.from_numpy(load).view(len(self.layers), self.experts)
        return losses, predicted, by_layer
