"""`Surrogate`: the estimate, corrected by what was measured; tells what a further trial can be expected to gain.

A Gaussian process over the log of measured over estimated rates (Rasmussen and Williams, *Gaussian Processes for
Machine Learning*, ch. 2 and 5), with a product kernel over the dimensions: how far two configurations are apart is
learned for each dimension. Expected improvement is that of Jones, Schonlau and Welch (1998).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import ndtr

from autotune.constants import RUN_TO_RUN_SHARE
from autotune.spec import LoaderConfig

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_DIMENSIONS: tuple[Callable[[LoaderConfig], object], ...] = (
    lambda config: config.batch_size,
    lambda config: config.num_workers,
    lambda config: config.prefetch_factor or 0,
    lambda config: config.pin_memory,
    lambda config: (config.archive, config.stored, config.order),
    lambda config: config.decoder,
    lambda config: (config.cache, config.cache_fraction),
)
_SPREADS, _WEIGHTS = (0.05, 3.0), (0.01, 10.0)
"""Bounds of the residuals' standard deviation, and of what a step in one dimension takes off their covariance."""
_START = (0.5, 1.0)
_FIT_EVERY = 4
"""Measured configurations after which spread and weights are fitted again: a few more hardly move them."""
_EFFORT = {"maxiter": 15}
"""Each fit begins where the last one ended, so that few steps are left."""


class Surrogate:
    """Predicts log rates of a space.

    Args:
        points: All configurations of the space.
        estimates: Estimated rate of each in samples/s; empty where there was no probe.
    """

    def __init__(self, points: Sequence[LoaderConfig], estimates: Mapping[LoaderConfig, float]) -> None:
        self._points = list(points)
        self._row = {config: number for number, config in enumerate(self._points)}
        prior = [np.log(estimates[config]) if config in estimates else 0.0 for config in self._points]
        self._prior = np.array(prior, dtype=np.float64)
        values = [[read(config) for config in self._points] for read in _DIMENSIONS]
        varying = [found for found in values if len({repr(value) for value in found}) > 1]
        self._places = np.array([_places(found) for found in varying]).reshape(len(varying), len(self._points))
        self._hyper = np.log([_START[0], *[_START[1]] * len(varying)])
        self._fit_from = 0

    def gains(self, rates: Mapping[LoaderConfig, float]) -> dict[LoaderConfig, float]:
        """Give the expected improvement of each unmeasured configuration over the best one, as a share of its rate.

        Args:
            rates: What was measured, in samples/s; at least two.
        """
        known = [config for config in rates if config in self._row]
        rows = np.array([self._row[config] for config in known])
        residuals = np.log([rates[config] for config in known]) - self._prior[rows]
        centre = float(np.mean(residuals))
        mean, deviation = self._posterior(rows, residuals - centre)
        mean += self._prior + centre
        best = float(np.max(mean[rows]))
        left = np.ones(len(self._points), dtype=bool)
        left[rows] = False
        score = (mean - best) / deviation
        density = np.exp(-0.5 * score**2) / np.sqrt(2 * np.pi)
        gains = deviation * (score * ndtr(score) + density)
        return {self._points[row]: float(np.expm1(gains[row])) for row in np.flatnonzero(left)}

    def _posterior(self, rows: Rows, values: Array) -> tuple[Array, Array]:
        """Give mean and standard deviation of every configuration's residual."""
        apart = self._apart(rows, rows)
        if len(rows) >= self._fit_from:
            self._hyper = _fitted(self._hyper, apart, values)
            self._fit_from = len(rows) + _FIT_EVERY
        factor = cho_factor(_covariance(apart, self._hyper) + RUN_TO_RUN_SHARE**2 * np.eye(len(rows)), lower=True)
        cross = _covariance(self._apart(np.arange(len(self._points)), rows), self._hyper)
        variance = np.exp(2 * self._hyper[0]) - np.sum(cross * cho_solve(factor, cross.T).T, axis=1)
        return cross @ cho_solve(factor, values), np.sqrt(np.maximum(variance, 1e-8))

    def _apart(self, one: Rows, other: Rows) -> Array:
        """Give how far configurations are apart, `(dimensions, one, other)`, at most 1 in each dimension."""
        places = self._places
        apart: Array = np.minimum(np.abs(places[:, one, None] - places[:, None, other]), 1.0)
        return apart


def _fitted(start: Array, apart: Array, values: Array) -> Array:
    """Find spread and weights by maximum likelihood, from where the last fit ended."""
    bounds = [np.log(_SPREADS), *[np.log(_WEIGHTS)] * len(apart)]
    found = minimize(_cost, start, args=(apart, values), jac=True, method="L-BFGS-B", bounds=bounds, options=_EFFORT)
    return np.asarray(found.x, dtype=np.float64)


def _cost(hyper: Array, apart: Array, values: Array) -> tuple[float, Array]:
    """Give the negative log likelihood, constants left out, and its gradient (Rasmussen and Williams, 5.9)."""
    covariance = _covariance(apart, hyper)
    factor = cho_factor(covariance + RUN_TO_RUN_SHARE**2 * np.eye(len(values)), lower=True)
    weighted = cho_solve(factor, values)
    cost = 0.5 * float(values @ weighted) + float(np.sum(np.log(np.diag(factor[0]))))
    inner = (cho_solve(factor, np.eye(len(values))) - np.outer(weighted, weighted)) * covariance
    by_weight = -0.5 * np.exp(hyper[1:]) * np.einsum("dij,ij->d", apart, inner)
    return cost, np.concatenate([[float(np.sum(inner))], by_weight])


def _covariance(apart: Array, hyper: Array) -> Array:
    covariance: Array = np.exp(2 * hyper[0] - np.tensordot(np.exp(hyper[1:]), apart, axes=1))
    return covariance


def _places(values: list[object]) -> Array:
    """Place the values of a dimension: numbers by rank from 0 to 1, everything else at a distance of 1 from another."""
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        ranks = {value: rank for rank, value in enumerate(sorted(set(values)))}  # type: ignore[type-var]
        return np.array([ranks[value] for value in values], dtype=np.float64) / max(1, len(ranks) - 1)
    numbered = {name: number for number, name in enumerate(dict.fromkeys(repr(value) for value in values))}
    return np.array([numbered[repr(value)] for value in values], dtype=np.float64)
