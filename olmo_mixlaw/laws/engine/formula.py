"""Laws with a formula: parameters with priors, losses with exact slopes, and the fit of both.

A formula names its parameters for a `Scene` and evaluates itself, with its exact Jacobian, for a
whole batch of parameter vectors at once; how it is fitted is written here once for all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import numpy as np

from olmo_mixlaw.errors import FitError
from olmo_mixlaw.laws.engine.search import FIRST_NOISE, log_evidence, search, standard_errors
from olmo_mixlaw.laws.engine.solver import Prior, Problems, solve
from olmo_mixlaw.laws.fitted import Fit, data_hash, provenance
from olmo_mixlaw.laws.law import Inputs, Law, Parameter, Row, Scene, Settings
from olmo_mixlaw.runs import Design
from olmo_mixlaw.runs.units import in_unit

# Refits of a bootstrap start from the fit itself and need not go far.
REFIT_STEPS = 40
REFIT_TOLERANCE = 1e-4
# The evidence for a prior that all targets share is that of so many of them.
EVIDENCE_TARGETS = 24


@dataclass(frozen=True)
class Formula(Law):
    """A formula with parameters. Subclasses give `parameters`, `evaluate`, `ratio_gradient`.

    A separable law has one parameter vector a target: `evaluate` maps (M, P) to (M, R). A
    coupled law has one vector for all targets and maps (M, P) to (M, R, T).
    """

    has_gradient: ClassVar[bool] = True
    n_starts: ClassVar[int] = 6

    @abstractmethod
    def parameters(self, scene: Scene, target: int) -> list[Parameter]:
        """The parameters of one target, in the order of theta (a coupled law ignores `target`)."""

    def candidates(self) -> Sequence[Formula]:
        """The formula with each of the priors among which the evidence of a table decides."""
        return (self,)

    @abstractmethod
    def evaluate(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Losses for each parameter vector, and their derivatives by theta."""

    @abstractmethod
    def ratio_gradient(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        """Derivative of the losses by the ratios, (M, R, K) or (M, R, T, K), the ratios free."""

    def predict(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        loss, _ = self.evaluate(fit.theta, inputs, fit.scene)
        return loss[0] if self.coupled else loss.T

    def gradient(self, fit: Fit, inputs: Inputs) -> np.ndarray:
        slopes = self.ratio_gradient(fit.theta, inputs, fit.scene)
        return slopes[0] if self.coupled else slopes.transpose(1, 0, 2)

    def fit(
        self,
        design: Design,
        *,
        seed: int,
        settings: Settings,
        weight: np.ndarray | None = None,
        scene: Scene | None = None,
    ) -> Fit:
        """`weight` (R,) counts runs; `scene` is that of more runs than these, whose terms the
        priors then carry (None: the design's own). Raises `FitError`.
        """
        candidates = self.candidates()
        if len(candidates) > 1:
            chosen = likeliest(candidates, design, seed, settings)
            return chosen.fit(design, seed=seed, settings=settings, weight=weight, scene=scene)
        scene = scene or Scene.of(design)
        items = self._items(scene)
        if settings.strict:
            self.check(design)
        # In random order, the first rows of a long table are a fair sample of it.
        order = np.random.default_rng(seed).permutation(len(design))
        problems = self.problems(design.take(order), scene, items, settings.huber)
        if weight is not None:
            problems = problems.weighted(_counts(problems, weight[None, order]))
        starts = settings.starts or self.n_starts
        problems, best = search(problems, starts, seed, settings.iterations)
        if not np.isfinite(best.cost).all() or not np.isfinite(best.theta).all():
            raise FitError(
                f"{self.name}: the fit diverged from every start; check the table's losses"
            )
        noise = np.repeat(problems.noise, scene.n_targets) if self.coupled else problems.noise
        return Fit(
            law=self,
            scene=scene,
            theta=best.theta,
            theta_sd=standard_errors(best, problems.prior),
            noise=noise,
            mixtures=np.unique(design.ratios, axis=0),
            n_rows=len(design),
            converged=best.converged,
            seed=seed,
            data_hash=data_hash(design),
            provenance=provenance(settings),
        )

    def refits(
        self,
        fit: Fit,
        design: Design,
        counts: np.ndarray,
        *,
        iterations: int = REFIT_STEPS,
        tolerance: float = REFIT_TOLERANCE,
    ) -> Iterator[Fit]:
        """All are solved at once, from where `fit` is; noise and prior stay as they are."""
        scene, copies, digest = fit.scene, len(counts), data_hash(design)
        drawn = counts.any(0)
        design, counts = design.take(drawn), counts[:, drawn].astype(float)
        huber = float(fit.provenance.get("huber", Settings.huber))
        problems = self.problems(design, scene, self._items(scene), huber)
        groups = len(problems.prior.mean)
        many = replace(problems, noise=fit.noise[:groups]).weighted(_counts(problems, counts))
        best = solve(
            many,
            np.arange(copies * groups),
            np.tile(fit.theta, (copies, 1)),
            iterations=iterations,
            tolerance=tolerance,
        )
        errors = standard_errors(best, many.prior)
        for i in range(copies):
            s = slice(i * groups, (i + 1) * groups)
            yield replace(
                fit,
                theta=best.theta[s],
                theta_sd=errors[s],
                converged=best.converged[s],
                data_hash=digest,
            )

    def problems(
        self, design: Design, scene: Scene, items: list[list[Parameter]], huber: float
    ) -> Problems:
        """The least-squares problems of a fit: one a target, or one for all that are coupled."""
        inputs = scene.inputs(design.ratios, design.n_params, design.n_tokens)
        # Residual r of a coupled law is run r // T, target r % T; blocks are cut at whole runs.
        per_run = scene.n_targets if self.coupled else 1

        @cache
        def some(first: int, last: int) -> Inputs:
            return inputs.take(slice(first, last)).compact()

        def evaluate(theta: np.ndarray, group: np.ndarray, rows: slice, jacobian: bool) -> Any:
            runs = some(rows.start // per_run, rows.stop // per_run)
            return self.residuals(theta, runs, scene, jacobian)

        log_loss = np.log(design.losses)
        return Problems(
            evaluate=evaluate,
            log_loss=log_loss.reshape(1, -1) if self.coupled else np.ascontiguousarray(log_loss.T),
            prior=prior_of(items),
            noise=np.full(len(items), FIRST_NOISE),
            huber=huber,
            run=per_run,
        )

    def residuals(
        self, theta: np.ndarray, inputs: Inputs, scene: Scene, jacobian: bool
    ) -> tuple[np.ndarray, Any]:
        """Losses (M, r) as the solver wants them, run by run where targets are coupled."""
        loss, slopes = self.evaluate(theta, inputs, scene, jacobian)
        if self.coupled:
            loss = loss.reshape(len(theta), -1)
            slopes = None if slopes is None else slopes.reshape(*loss.shape, theta.shape[1])
        return loss, slopes

    def prior(self, scene: Scene) -> Prior:
        """The prior (G, P) of the parameters: a row a target, or one for all that are coupled."""
        return prior_of(self._items(scene))

    def log_slopes(self, theta: np.ndarray, inputs: Inputs, scene: Scene) -> np.ndarray:
        """Derivatives of each target's log losses by its parameters, (T, R, P), at theta (G, P).

        With the prior and the noise they give the posterior's precision (Laplace): the prior's
        plus J' J over the noise's square.
        """
        loss, slopes = self.evaluate(theta, inputs, scene, jacobian=True)
        assert slopes is not None
        found = slopes / loss[..., None]
        return found[0].transpose(1, 0, 2) if self.coupled else found

    def check(self, design: Design) -> None:
        super().check(design)
        seen = np.isfinite(design.losses)
        for target, needed in enumerate(self._items(Scene.of(design))):
            have = int(seen.sum() if self.coupled else seen[:, target].sum())
            free = sum(item.sd > 0 for item in needed)
            if have < free:
                loss_on = f"runs with a loss on {design.targets[target]!r}"
                raise FitError(
                    f"{self.name}: {have} {'entries' if self.coupled else loss_on} for {free} "
                    f"parameters; {free - have} more are needed (or a law with fewer parameters)"
                )

    def count(self, fit: Fit) -> int:
        return int((fit.theta_sd > 0).sum()) or int(fit.theta.size)

    def rows(self, fit: Fit) -> list[Row]:
        """Each with the ends of about 68 %."""
        rows = []
        for index, theta in enumerate(fit.theta):
            target = "all" if self.coupled else fit.targets[index]
            items = self.parameters(fit.scene, index)
            for item, value, sd in zip(items, theta, fit.theta_sd[index], strict=True):
                ends = np.array([value, value - sd, value + sd])
                middle, low, high = np.exp(np.clip(ends, -700, 700)) if item.log else ends
                unit = in_unit(item.unit, fit.scene.unit)
                rows.append((target, item.name, middle, low, high, unit, item.sd == 0))
        return rows

    def in_profile(self, design: Design) -> Formula:
        return self

    def prior_cost(self, fit: Fit) -> float:
        """Half the squared distance of all parameters from the middle of their prior, in its sd."""
        prior = self.prior(fit.scene)
        return float(0.5 * (prior.precision * (fit.theta - prior.mean) ** 2).sum())

    def _items(self, scene: Scene) -> list[list[Parameter]]:
        """The parameters of each of the law's problems: one a target, or one for all."""
        return [self.parameters(scene, t) for t in range(1 if self.coupled else scene.n_targets)]


def likeliest(
    candidates: Sequence[Formula], design: Design, seed: int, settings: Settings
) -> Formula:
    """The candidate under which the losses of all targets (or a sample of them) are likeliest."""
    some = np.random.default_rng(seed).permutation(len(design.targets))[:EVIDENCE_TARGETS]
    few = replace(design, targets=[design.targets[t] for t in some], losses=design.losses[:, some])
    scene = Scene.of(few)

    def evidence(law: Formula) -> float:
        problems = law.problems(few, scene, law._items(scene), settings.huber)
        return log_evidence(*search(problems, 1, seed, settings.iterations))

    return max(candidates, key=evidence)


def prior_of(items: list[list[Parameter]]) -> Prior:
    """The prior of parameters, a list a problem."""
    return Prior(
        *(
            np.array([[getattr(item, name) for item in group] for group in items], float)
            for name in ("mean", "sd", "lower", "upper")
        )
    )


def _counts(problems: Problems, weights: np.ndarray) -> np.ndarray:
    """Weights of runs (B, R) as weights of every problem's residuals (B, G, ...)."""
    counts = np.repeat(weights, problems.run, axis=1)[:, None]
    return np.broadcast_to(counts, (len(weights), *problems.log_loss.shape))
