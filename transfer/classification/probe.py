"""The linear probe: multinomial logistic regression on frozen features, solved to its optimum.

    minimise over W (K, F) and b (K):   mean cross entropy of x W' + b   +   lam R(W)

R(W) is the sum of the squared weights, or its square root (the Frobenius norm), as OmniBenchmark's
linear_probe/main.py has it. Three differences to that file: there the cross entropy is the sum of
the means of ten parts of the data, so its lam is ten times ours; there a fixed number of steps
without line search is made, here the optimum is found; there the best of several looks is kept.
Features are taken as they are: nothing is scaled to unit variance or length.

Solved by L-BFGS (torch) in float64, in coordinates that change no optimum: features are centred
(the free bias takes that up) and turned into the axes of their covariance, and each axis is
stretched until the curvature is about one. N images, F features, K classes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["squared", "norm"]

_BLOCK = 2**25  # entries of logits in memory at once


@dataclass(frozen=True)
class Probe:
    """A solution, in the coordinates of the features."""

    penalty: float
    weight: Tensor
    """(K, F) float64."""
    bias: Tensor
    """(K,) float64."""
    objective: float
    """What was minimised."""
    gradient: float
    """Its largest entry at the end, in the solver's coordinates."""
    iterations: int
    converged: bool

    def predict(self, features: Tensor) -> Tensor:
        """(N, F) -> (N,) classes; of equals the first."""
        rows = max(1, _BLOCK // len(self.bias))
        parts = [
            (part.to(self.weight) @ self.weight.T + self.bias).argmax(1)
            for part in features.split(rows)
        ]
        return torch.cat(parts)


class Problem:
    """A probe's data, prepared once for every penalty.

    Args:
        features: (N, F), any float type.
        labels: (N,) int64.
        num_classes: K.
        kind: R, see above.
        device: where to compute; it must know float64.
    """

    def __init__(
        self, features: Tensor, labels: Tensor, num_classes: int, kind: Kind, device: torch.device
    ) -> None:
        given = features.to(device, torch.float64)
        self.labels, self.kind = labels.to(device), kind
        self.mean = given.mean(0)
        centred = given - self.mean
        spread, self.axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        self.spread = spread.clamp(min=0)
        self.points = centred @ self.axes
        counts = torch.bincount(self.labels, minlength=num_classes).double()
        self.log_shares = (counts.clamp(min=0.5) / len(given)).log()
        """The best biases where the weights are zero (and every class is there)."""

    def path(
        self, penalties: Sequence[float], tolerance: float, max_iterations: int
    ) -> Iterator[Probe]:
        """Solutions from the strongest penalty to the weakest, each begun at the one before."""
        start: Probe | None = None
        for penalty in sorted(set(penalties), reverse=True):
            start = self.solve(penalty, tolerance, max_iterations, start)
            yield start

    def solve(
        self, penalty: float, tolerance: float, max_iterations: int, start: Probe | None = None
    ) -> Probe:
        """The optimum at one penalty.

        Args:
            penalty: lam, above 0.
            tolerance: largest entry of the gradient that ends the search.
            max_iterations: ends it too.
            start: where to begin; zero weights without it.
        """
        weight, bias = torch.zeros_like(self._zero), self.log_shares.clone()
        if start is not None:
            weight = start.weight @ self.axes
            bias = start.bias + start.weight @ self.mean
        if self.kind == "norm" and not weight.any():
            _, slope, _ = self.cross_entropy(weight, self.log_shares)
            if slope.norm() <= penalty:  # no direction pays for its length: zero is the optimum
                value = self.cross_entropy(weight, self.log_shares)[0]
                return self._probe(penalty, weight, self.log_shares, value, 0.0, 0, tolerance)
            weight = -1e-3 * slope / slope.norm()  # away from zero, where the norm has no slope
        stretch = (self.spread / len(bias) + 2 * penalty).rsqrt()
        free = [(weight / stretch).requires_grad_(), bias.requires_grad_()]
        search = torch.optim.LBFGS(
            free,
            max_iter=max_iterations,
            max_eval=10 * max_iterations,
            tolerance_grad=tolerance,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure() -> Tensor:
            value, slopes = self._objective(free[0].detach() * stretch, free[1].detach(), penalty)
            free[0].grad, free[1].grad = slopes[0] * stretch, slopes[1]
            return value

        search.step(closure)
        value = float(closure())
        gradient = max(float(part.grad.abs().max()) for part in free if part.grad is not None)
        iterations = int(search.state[free[0]]["n_iter"])
        found = free[0].detach() * stretch, free[1].detach()
        return self._probe(penalty, *found, value, gradient, iterations, tolerance)

    @property
    def _zero(self) -> Tensor:
        return self.points.new_zeros(len(self.log_shares), self.points.shape[1])

    def _probe(
        self,
        penalty: float,
        weight: Tensor,
        bias: Tensor,
        value: float,
        gradient: float,
        iterations: int,
        tolerance: float,
    ) -> Probe:
        """Back in the coordinates of the features."""
        own = weight @ self.axes.T
        converged = gradient <= tolerance and math.isfinite(value)
        return Probe(penalty, own, bias - own @ self.mean, value, gradient, iterations, converged)

    def _objective(
        self, weight: Tensor, bias: Tensor, penalty: float
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What is minimised and its slopes, weights in the axes of the covariance."""
        loss, slope, slope_bias = self.cross_entropy(weight, bias)
        if self.kind == "squared":
            value = loss + penalty * float(weight.square().sum())
            slope += 2 * penalty * weight
        else:
            length = float(weight.norm())
            value = loss + penalty * length
            slope += penalty / max(length, 1e-300) * weight
        return slope.new_tensor(value), (slope, slope_bias)

    def cross_entropy(self, weight: Tensor, bias: Tensor) -> tuple[float, Tensor, Tensor]:
        """Mean cross entropy, and its slopes for weights (K, F) and biases (K,)."""
        slope, slope_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        total = torch.zeros((), dtype=weight.dtype, device=weight.device)
        rows = max(1, _BLOCK // len(bias))
        for points, labels in zip(self.points.split(rows), self.labels.split(rows), strict=True):
            told = torch.log_softmax(torch.addmm(bias, points, weight.T), 1)
            total -= told.gather(1, labels[:, None]).sum()
            wrong = told.exp_()
            wrong[torch.arange(len(labels), device=wrong.device), labels] -= 1
            slope.addmm_(wrong.T, points)
            slope_bias += wrong.sum(0)
        count = len(self.labels)
        return float(total) / count, slope / count, slope_bias / count
