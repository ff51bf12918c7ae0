"""Replayed multipliers against samples, on random flows: nothing is proved that is not so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flint import ctx
from scipy.linalg import solve_continuous_lyapunov

import lyapjax as ly
from lyapjax.certificates import sectors
from lyapjax.certificates.certificate import exact, write_program
from lyapjax.certificates.regions import RegionClaim
from lyapjax.readers.program import trace


@pytest.fixture(autouse=True)
def _precise():
    """The precision of a replay."""
    with ctx.workprec(96):
        yield


SHAPES = (
    *(
        jnp.sin,
        jnp.cos,
        jnp.tanh,
        jnp.arctan,
        jnp.square,
        lambda v: v**3,
        lambda v: 1 / (2 + v * v),
    ),
    *(lambda v: jnp.exp(0.5 * v), lambda v: jnp.log(3 + v), lambda v: jnp.sqrt(2 + v * v)),
)


def random_flow(rng, n: int):
    """A stable linear part, six products of functions of random combinations; at times a mass."""
    A = rng.normal(size=(n, n))
    A = A - A.T - np.diag(rng.uniform(0.5, 1.5, n))
    terms = [
        (i % n, *rng.integers((n, len(SHAPES), len(SHAPES))), *rng.normal(size=(2, n)))
        for i in range(6)
    ]
    sizes = 0.5 * rng.normal(size=6)
    with_mass = rng.uniform() < 0.4

    def f(x):
        out = [jnp.dot(A[i], x) for i in range(n)]
        for c, (i, k, g, h, a, b) in zip(sizes, terms):
            factor = SHAPES[g](jnp.dot(a, x)) * SHAPES[h](jnp.dot(b, x))
            out[i] = out[i] + c * factor * x[k] / (1 + jnp.square(x[i]))
        if not with_mass:
            return jnp.stack(out)
        M = [
            [2 + jnp.cos(x[i]) if i == j else 0.4 * jnp.sin(x[i] + x[j]) for j in range(n)]
            for i in range(n)
        ]
        return ly.systems.solve(jnp.stack([jnp.stack(row) for row in M]), jnp.stack(out))

    return f


@pytest.mark.slow
def test_what_multipliers_prove_of_random_flows_holds_at_samples():
    """With features and mass matrices, on whole balls and on parts, up to the largest level."""
    rng, proved, refused = np.random.default_rng(5), 0, 0
    for _ in range(9):
        n = int(rng.integers(2, 5))
        f, W = random_flow(rng, n), rng.normal(size=(2, n))
        J = np.asarray(jax.jacfwd(f)(jnp.zeros(n)))
        if np.linalg.eigvals(J).real.max() > -0.1:
            continue
        P = solve_continuous_lyapunov(J.T, -np.eye(n))
        P, scale = 0.5 * (P + P.T), float(rng.choice([0.0, 0.5]))
        R = np.linalg.cholesky(np.linalg.inv(P))

        def V(x, P=P, W=W, scale=scale):
            return x @ P @ x + jnp.sum(jnp.square(scale * jnp.tanh(W @ x)))

        document = {
            "f": write_program(trace(f, jnp.zeros(n), whole=True)),
            "features": write_program(trace(lambda x, W=W: 0.5 * jnp.tanh(W @ x), jnp.zeros(n)))
            if scale
            else None,
            "domain": {"kind": "ball", "numbers": exact([99.0, *[0.0] * n])},
            **{"equilibrium": exact(np.zeros(n)), "P": exact(P), "R": exact(R)},
        }
        look = jax.jit(jax.vmap(lambda x, V=V, f=f: (V(x), ly.lie_derivative(V, f, x))))
        for level in np.geomspace(0.01, 5.0, 14):
            claim = RegionClaim(document | {"level": exact(level)})
            top = np.full(n, float(claim.rho.sqrt().upper()) * (1 + 1e-9))
            lo, hi = -top, top
            if rng.uniform() < 0.4:
                lo = rng.uniform(-top, 0.3 * top)
                hi = np.minimum(lo + rng.uniform(0.2, 1.2, n) * top, top)
            part = claim.clipped(lo, hi)
            form = None if part is None else sectors.reduced(claim, *part)
            if form is None:
                continue
            given = sectors.inexact([form], lo[None], hi[None], float(claim.rho))
            with np.errstate(all="ignore"):
                t = given.prove(1.0)[1][0]
            if not sectors.falls(claim, form, lo, hi, t.tolist()):
                refused += 1
                continue
            proved += 1
            z = rng.normal(size=(4000, n))
            z *= top[0] * rng.uniform(0.5, 1, (4000, 1)) / np.linalg.norm(z, axis=1)[:, None]
            values, slopes = map(np.asarray, look(jnp.asarray(z @ R.T)))
            inside = ((z >= lo) & (z <= hi)).all(axis=1) & (values <= level)
            assert (slopes[inside] < 0).all()
    assert proved > 20
    assert refused > 20
