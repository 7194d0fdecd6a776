"""Intervals by resampling, for `evaluate` and `best_of_n`."""

import numpy as np


def interval(values: np.ndarray, resamples: int, confidence: float, seed: int) -> list[float]:
    """[low, high] of the mean of `values` (N,), by resampling its rows: the same rows are drawn for every quantity
    (Efron 1979).
    """
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    edge = (1 - confidence) / 2
    return np.quantile(values[draws].mean(axis=1), [edge, 1 - edge]).round(4).tolist()
