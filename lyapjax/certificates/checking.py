"""What every check of a certificate has in common: its budget, its failure, definite matrices."""

import time
from typing import NamedTuple

import numpy as np
from flint import arb, arb_mat

MAX_DEPTH = 12


class Budget(NamedTuple):
    """When to stop, and how many boxes of an obligation are checked in balls alone (None: all)."""

    deadline: float
    num_balls: int | None


class Failed(Exception):
    """An obligation that does not hold, as far as can be told."""


def keep_time(name: str, budget: Budget) -> None:
    """Fail if the time is over."""
    if time.perf_counter() > budget.deadline:
        raise Failed(f"{name}: the time is over")


def give_up(name: str, lo, hi, depth: int) -> None:
    """Fail if a box that is not proved is not to be cut any more."""
    if depth >= MAX_DEPTH:
        raise Failed(f"{name}: the box from {lo.tolist()} to {hi.tolist()} is not proved")


def exact(values: np.ndarray) -> arb_mat:
    """A matrix of floats as balls without width."""
    return arb_mat(*values.shape, [arb(v) for v in values.ravel().tolist()])


def is_definite(matrix: arb_mat) -> bool:
    """Proof that every symmetric matrix in a matrix of balls is positive definite.

    By Gershgorin's circles, after a congruence that takes its middle to about the identity.
    """
    n = matrix.nrows()
    middle = np.array([float(v.mid()) for v in matrix.entries()]).reshape(n, n)
    if not np.isfinite(middle).all():
        return False
    try:
        R = exact(np.linalg.inv(np.linalg.cholesky(middle)))
    except np.linalg.LinAlgError:
        return False
    image = R * matrix * R.transpose()
    for i in range(n):
        others = sum((abs(image[i, j]) for j in range(n) if j != i), arb(0))
        if not image[i, i] > others:
            return False
    return True
