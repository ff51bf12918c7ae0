"""The partition method: general tridiagonal systems in many lanes at once.

Cut the m rows into parts of L consecutive rows. In a part, with s the last unknown of the part
before and x_L its own last unknown, forward elimination of rows 1 … L-1 without pivoting gives

    x_l + α_l x_(l+1) + λ_l s = ρ_l,

where λ, the fill-in, obeys λ_l = -a_l λ_(l-1) / pivot. Substituting backwards expresses the first
unknown of the part by its two ends, x_1 = y - p s - q x_L. With that, the last row of every part
couples only last unknowns: a tridiagonal system with one unknown a part, which LAPACK or cuSPARSE
solves. Then each part substitutes backwards on its own.

All parts advance together, so a step is a vector operation over the parts. On a CPU the parts are
taken in chunks that stay in the cache, and the elimination is computed again in the second pass
rather than kept: reading four diagonals twice costs less than writing three arrays and reading
them back. No pivoting, as in `thomas`: diagonal dominance is what makes it safe.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from poisson.recurrences import eliminate, substitute
from poisson.systems import Facts, LinearSolution, check_vector, row_facts, solve_system

ROWS_PER_PART = 16
ROWS_PER_CHUNK = 1 << 16  # four diagonals in float64: 2 MiB, the size of a second-level cache


def _reduce(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """What the reduced system needs to know of each part, (7, parts), and the rows' facts, (2,).

    The facts are collected in the same sweep, while the rows are at hand.
    """

    def forward(carry, row):
        (alpha, fill, rho), facts = carry
        a, b, c, d = row
        pivot = b - a * alpha
        new = c / pivot, -a * fill / pivot, (d - a * rho) / pivot
        return (new, tuple(map(jnp.maximum, facts, row_facts(*row)))), new

    zero = jnp.zeros_like(b[0])
    start = (zero, zero - 1, zero), row_facts(a[-1], b[-1], c[-1], d[-1])  # λ_0 = -1: a_1 s
    ((alpha, fill, rho), facts), rows = lax.scan(forward, start, (a[:-1], b[:-1], c[:-1], d[:-1]))

    def backward(carry, row):
        y, p, q = carry
        alpha, fill, rho = row
        return (rho - alpha * y, fill - alpha * p, -alpha * q), None

    (y, p, q), _ = lax.scan(backward, (zero, zero, zero - 1), rows, reverse=True)
    a, b, c, d = a[-1], b[-1], c[-1], d[-1]
    parts = jnp.stack([-a * fill, b - a * alpha, c, d - a * rho, y, p, q])
    return parts, jnp.max(jnp.stack(facts), axis=1)


def _solve_reduced(parts: Array) -> Array:
    a, b, c, d, y, p, q = parts
    y, p, q = (jnp.pad(v[1:], (0, 1)) for v in (y, p, q))  # of the part behind
    a, b, c, d = a.at[0].set(0), b - c * p, -c * q, d - c * y
    return lax.linalg.tridiagonal_solve(a, b, c.at[-1].set(0), d[:, None])[:, 0]


def _substitute(a: Array, b: Array, c: Array, d: Array, before: Array, last: Array):
    """All unknowns, in order, from the last of each part and of the one before; the largest."""
    d = d.at[0].add(-a[0] * before)
    x = substitute(*eliminate(a[:-1], b[:-1], c[:-1], d[:-1]), last)
    x = jnp.concatenate([x, last[None]])
    return x.T.reshape(-1), jnp.max(jnp.max(jnp.abs(x), axis=0))


def solve_in_parts(a: Array, b: Array, c: Array, d: Array, rows: int, chunk: int):
    """x and its facts, from parts of `rows` rows, `chunk` rows at a time."""
    m = b.shape[0]
    lanes = chunk // rows
    chunks = (m - 1) // chunk  # full ones; the rest, never empty, holds the last row
    done = chunks * chunk

    def into_lanes(v):
        return v.reshape(-1, rows).T

    def load(k):
        start = k * chunk
        below = lax.dynamic_slice(a, (jnp.maximum(start - 1, 0),), (chunk,))
        below = jnp.where(start == 0, jnp.roll(below, 1).at[0].set(0), below)
        others = (lax.dynamic_slice(v, (start,), (chunk,)) for v in (b, c, d))
        return tuple(map(into_lanes, (below, *others)))

    def load_rest():
        size = -(-(m - done) // rows) * rows
        below = a[done - 1 :] if done else jnp.pad(a, (1, 0))
        # Rows of padding are decoupled, and as large as the last row, so that they change no fact.
        scale = jnp.maximum(jnp.abs(b[-1]), jnp.abs(below[-1]))
        scale = jnp.where(scale > 0, scale, 1)
        vectors = ((below, 0), (b[done:], scale), (c[done:], 0), (d[done:], 0))
        return tuple(
            into_lanes(jnp.pad(v, (0, size - v.shape[0]), constant_values=k)) for v, k in vectors
        )

    parts, facts = _reduce(*load_rest())
    if chunks:
        first, more = lax.map(lambda k: _reduce(*load(k)), jnp.arange(chunks))
        parts = jnp.concatenate([jnp.moveaxis(first, 0, 1).reshape(7, -1), parts], axis=1)
        facts = jnp.maximum(facts, jnp.max(more, axis=0))
    last = _solve_reduced(parts)
    before = jnp.pad(last[:-1], (1, 0))

    def fill_chunk(k, state):
        x, largest = state
        ends = (lax.dynamic_slice(v, (k * lanes,), (lanes,)) for v in (before, last))
        new, size = _substitute(*load(k), *ends)
        return lax.dynamic_update_slice(x, new, (k * chunk,)), jnp.maximum(largest, size)

    new, largest = _substitute(*load_rest(), before[chunks * lanes :], last[chunks * lanes :])
    x = jnp.pad(new[: m - done], (done, 0))
    if chunks:
        x, largest = lax.fori_loop(0, chunks, fill_chunk, (x, largest))
    return x, Facts(*facts, largest)


def layout(m: int, num_parts: int | None) -> tuple[int, int]:
    """Rows a part, and rows a chunk (a multiple of it)."""
    rows = min(ROWS_PER_PART, m) if num_parts is None else -(-m // num_parts)
    rows = max(rows, 2)
    wide = jax.default_backend() != "cpu"  # an accelerator takes all parts in one step
    chunk = max(m if wide else ROWS_PER_CHUNK, rows)
    return rows, chunk // rows * rows


def partition(a, b, c, d, num_parts: int | None = None) -> LinearSolution:
    """Solve a general tridiagonal system by the partition method, all parts in parallel.

        A x = d,        A = diag(b) + diag(a, -1) + diag(c, 1)

    About 24 operations an unknown against 8 of `thomas`, but they are vector operations:
    m/num_parts steps instead of m.

    It does not pivot: `status` says NOT_DOMINANT where that may matter; `lapack` pivots.

    Args:
      a: (m-1,) sub-diagonal.
      b: (m,) diagonal.
      c: (m-1,) super-diagonal.
      d: (m,) right-hand side. Batches by `jax.vmap`.
      num_parts: how many parts at most; all have ceil(m / num_parts) rows, at least 2. The
        default makes parts of 16 rows.

    Returns:
      `LinearSolution` with x of shape (m,) and a status.

    Raises:
      ValueError: a length, a dtype or a non-finite entry, by the argument's name; `num_parts` not
        between 1 and m.

    Reference:
      Wang, H. H. (1981), A parallel method for tridiagonal equations, ACM TOMS 7(2), 170-183.
      Departure: the elimination is computed twice rather than stored.

    Examples:
      >>> import jax.numpy as jnp, poisson
      >>> one = jnp.ones(4)
      >>> d = jnp.array([1.0, 2, 3, 4, 6])
      >>> poisson.partition(-one, 2 * jnp.ones(5), -one, d, num_parts=2).x.round(12)
      Array([ 6., 11., 14., 14., 10.], dtype=float64)
    """
    m = check_vector("b", b).shape[0]
    integer = isinstance(num_parts, (int, np.integer)) and not isinstance(num_parts, bool)
    if num_parts is not None and not (integer and 1 <= num_parts <= m):
        raise ValueError(f"num_parts: expected 1 to m = {m}, got {num_parts!r}")
    return solve_system(solve_in_parts, a, b, c, d, pivoted=False, options=layout(m, num_parts))
