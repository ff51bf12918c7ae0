"""Oracles for the tests of `klcontrol`: 100-digit arithmetic and dense algebra."""

import flint
import numpy as np

DIGITS = 100


def exact_log_lam(q, cost, beta) -> tuple[flint.arb, flint.arb]:
    """(log λ*, ρ*) of H = diag(exp(-β c)) q to about 100 digits, as balls; q dense."""
    n = len(cost)
    with flint.ctx.workdps(DIGITS + 60):
        beta = flint.arb(float(beta))
        least = beta * flint.arb(float(np.min(cost)))
        H = flint.arb_mat(n, n)
        for i in range(n):
            factor = (least - beta * flint.arb(float(cost[i]))).exp()
            for j in range(n):
                H[i, j] = factor * flint.arb(float(q[i][j]))
        if n == 2:
            a, b, c, d = H[0, 0], H[0, 1], H[1, 0], H[1, 1]
            log_lam = ((a + d + ((a - d) ** 2 + 4 * b * c).sqrt()) / 2).log() - least
        else:
            log_lam = _by_squaring(H, n).log() - least
        assert float(log_lam.rad()) < 1e-60
        return log_lam, -log_lam / beta


def _by_squaring(H, n) -> flint.arb:
    """λ* between the Collatz–Wielandt bounds of a column of H^(2^26)."""
    power = H
    for _ in range(26):
        power = power * power
        top = max((power[i, j] for i in range(n) for j in range(n)), key=float)
        power = flint.arb_mat(n, n, [(v / top).mid() for v in power.entries()])
    column = [sum((power[i, j] for j in range(n)), flint.arb(0)) for i in range(n)]
    image = [sum((H[i, j] * column[j] for j in range(n)), flint.arb(0)) for i in range(n)]
    ratios = [a / b for a, b in zip(image, column)]
    lowest, highest = min(ratios, key=lambda r: r.mid()), max(ratios, key=lambda r: r.mid())
    return lowest.union(highest)


def exact_z(q, cost, beta, *, squarings=26) -> list[flint.arb]:
    """z* with sum one to about 60 digits: a column of H^(2^squarings), if the gap allows."""
    n = len(cost)
    with flint.ctx.workdps(3 * DIGITS):
        beta = flint.arb(float(beta))
        least = beta * flint.arb(float(np.min(cost)))
        power = flint.arb_mat(n, n)
        for i in range(n):
            factor = (least - beta * flint.arb(float(cost[i]))).exp()
            for j in range(n):
                power[i, j] = (factor * flint.arb(float(q[i][j]))).mid()
        for _ in range(squarings):
            power = power * power
            top = max((power[i, j] for i in range(n) for j in range(n)), key=float)
            power = flint.arb_mat(n, n, [(v / top).mid() for v in power.entries()])
        column = [sum((power[i, j] for j in range(n)), flint.arb(0)) for i in range(n)]
        total = sum(column, flint.arb(0))
        return [v / total for v in column]


def contains(bounds, true: flint.arb) -> bool:
    """Whether [bounds[0], bounds[1]] certainly contains the whole ball."""
    return flint.arb(float(bounds[0])) <= true and true <= flint.arb(float(bounds[1]))


def dense_solution(q, cost, beta):
    """(λ, z with sum one) by LAPACK, for costs that do not underflow."""
    H = np.exp(-beta * np.asarray(cost))[:, None] * np.asarray(q)
    values, vectors = np.linalg.eig(H)
    k = np.argmax(values.real)
    z = np.abs(vectors[:, k].real)
    return values[k].real, z / z.sum()


def random_problem(rng, n, cost=5.0):
    """A dense q with some zeros, irreducible and aperiodic, and costs."""
    q = rng.exponential(size=(n, n)) * (rng.random((n, n)) < 0.5)
    q += np.eye(n) * rng.random(n) + np.roll(np.eye(n), 1, axis=1)
    return q / q.sum(axis=1, keepdims=True), cost * rng.random(n)
