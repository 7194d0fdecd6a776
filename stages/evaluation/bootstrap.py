"""Intervals by resampling, for `evaluate` and `best_of_n`."""

import numpy as np
from scipy import stats


def interval(values: np.ndarray, resamples: int, confidence: float, seed: int) -> list[float]:
    """[low, high] of the mean of `values` (N,), by the percentile bootstrap over its rows (Efron 1979).

    The seed draws the same rows for every quantity of one length, so that their intervals are comparable. One row
    alone has no spread.
    """
    if len(values) == 1:
        return [float(values.round(4)[0])] * 2
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return np.array(found.confidence_interval).round(4).tolist()
