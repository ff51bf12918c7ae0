"""Kullback–Leibler control problems: passive dynamics q, costs c, temperature 1/β.

A chain on the states 0 … n-1 moves by q when it is left alone. Moving by p instead costs
KL(p(·|i) ‖ q(·|i)) / β on top of c(i) at every step. With

    h_ij = exp(-β c_i) q_ij,        H z* = λ* z*,        z* > 0,

the value is Φ = -log(z*)/β, the optimal average cost ρ* = -log(λ*)/β, and the optimal transitions
p*_ij = h_ij z*_j / (λ* z*_i). There are two criteria:

    average   q irreducible; λ* is the Perron–Frobenius eigenvalue of H, z* sums to one
    total     absorbing states (q_ii = 1, c_i = 0), one of which every state can reach; λ* = 1,
              and z* = 1 where the chain is absorbed

Departure: the draft drops β from h_ij. After construction q has one of three forms: a dense (n, n)
array; `Neighbours`, lists of successors, which is what scales (sparse matrices are turned into it);
or a function z -> q z, whose entries nobody can check.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from jax.experimental.sparse import BCSR

from klcontrol.connectivity import first_unreachable, first_without_exit
from klcontrol.dynamics import Neighbours, as_neighbours, is_concrete, pattern, stay_probabilities

CRITERIA = ("average", "total")


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Problem:
    """A Kullback–Leibler control problem.

        h_ij = exp(-β c_i) q_ij

    Construction checks what can be known: shapes, finite values, rows of q that are distributions,
    β > 0, and the connectivity that the criterion needs. Under a trace only shapes are checked.

    Attributes:
      q: passive dynamics: (n, n) array, `Neighbours`, a sparse matrix of scipy or a BCSR (turned
        into `Neighbours`), or a function z -> q z.
      cost: (n,) cost of a step from each state.
      beta: () inverse temperature: how much cost weighs against control.
      criterion: "average" (irreducible q) or "total" (until absorption).

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> p = klcontrol.Problem(jnp.full((2, 2), 0.5), jnp.array([0.0, 1.0]), beta=2.0)
      >>> p.num_states, p.criterion
      (2, 'average')
    """

    q: Any
    cost: Array
    beta: Array | float = 1.0
    criterion: str = dataclasses.field(default="average", kw_only=True)

    def __post_init__(self):
        if self.criterion not in CRITERIA:
            raise ValueError(f"criterion: expected one of {CRITERIA}, got {self.criterion!r}")
        cost = floating_array("cost", self.cost)
        if cost.ndim != 1 or cost.shape[0] < 1:
            raise ValueError(
                f"cost: expected a vector, a number a state, got shape {cost.shape} "
                "(use jax.vmap for batches)"
            )
        check_finite("cost", cost)
        beta = floating_array("beta", self.beta)
        if beta.ndim:
            raise ValueError(f"beta: expected a number, got shape {beta.shape}")
        if is_concrete(beta) and not (np.isfinite(np.asarray(beta)) and np.asarray(beta) > 0):
            raise ValueError(f"beta: expected a positive, finite number, got {float(beta)}")
        q = _standard_form(self.q, cost)
        object.__setattr__(self, "q", q)
        object.__setattr__(self, "cost", cost)
        object.__setattr__(self, "beta", beta.astype(cost.dtype))
        _check_connected(q, cost, self.criterion)

    @property
    def num_states(self) -> int:
        """n."""
        return self.cost.shape[-1]

    @property
    def absorbing(self) -> Array:
        """(n,) mask of the states with q_ii = 1 and c_i = 0; none under the average criterion."""
        if self.criterion == "average":
            return jnp.zeros(self.cost.shape, bool)
        return (stay_probabilities(self.q) == 1) & (self.cost == 0)

    def tree_flatten_with_keys(self):
        """Children by name, and the criterion, which is static."""
        names = ("q", "cost", "beta")
        children = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in names]
        return children, self.criterion

    @classmethod
    def tree_unflatten(cls, criterion, children):
        """A problem of any leaves: transformations of JAX put what they like there."""
        problem = object.__new__(cls)
        for name, value in zip(("q", "cost", "beta"), children):
            object.__setattr__(problem, name, value)
        object.__setattr__(problem, "criterion", criterion)
        return problem


def floating_array(name: str, value) -> Array:
    """`value` as a real floating array, integers promoted, anything else refused by name."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: expected real numbers, got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
        array = array.astype(jnp.result_type(float))
    if array.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array


def check_finite(name: str, array) -> None:
    """Refuse NaN and infinity by name and state, if the entries are known now."""
    # By NumPy: inside a caller's jit even an operation on known numbers would be traced.
    if is_concrete(array):
        finite = np.isfinite(np.asarray(array))
        if not finite.all():
            state = int(np.argwhere(~finite)[0, 0])
            raise ValueError(
                f"{name}: expected finite values, got NaN or infinity at state {state}"
            )


def _standard_form(q, cost: Array):
    """q as an array, Neighbours or a Partial, checked, in the dtype of the costs."""
    n = cost.shape[0]
    if isinstance(q, BCSR) or scipy.sparse.issparse(q):
        if len(q.shape) != 2 or q.shape != (n, n):
            raise ValueError(f"q: expected shape {(n, n)} for {n} costs, got {q.shape}")
        q = as_neighbours(q)
    if isinstance(q, Neighbours):
        indices = jnp.asarray(q.indices)
        values = floating_array("q.probabilities", q.probabilities).astype(cost.dtype)
        if not jnp.issubdtype(indices.dtype, jnp.integer):
            raise ValueError(f"q.indices: expected integers, got {indices.dtype}")
        if indices.shape != values.shape or indices.ndim != 2 or indices.shape[0] != n:
            raise ValueError(
                f"q: expected indices and probabilities of one shape ({n}, d) for {n} costs, got "
                f"{indices.shape} and {values.shape}"
            )
        if is_concrete(indices):
            outside = ((np.asarray(indices) < 0) | (np.asarray(indices) >= n)).any(axis=1)
            if outside.any():
                raise ValueError(
                    f"q.indices: expected states 0 … {n - 1}, got another in the list of state "
                    f"{int(np.argmax(outside))}"
                )
        _check_rows(values)
        return Neighbours(indices, values)
    if callable(q):
        return _check_function(q, cost)
    q = floating_array("q", q).astype(cost.dtype)
    if q.shape != (n, n):
        raise ValueError(f"q: expected shape {(n, n)} for {n} costs, got {q.shape}")
    _check_rows(q)
    return q


def _check_rows(values: Array) -> None:
    """Every row is a distribution, up to the rounding of whoever normalised it."""
    check_finite("q", values)
    if not is_concrete(values):
        return
    host = np.asarray(values)
    negative = (host < 0).any(axis=1)
    if negative.any():
        state = int(np.argmax(negative))
        raise ValueError(
            f"q: expected probabilities, got {host[state].min()} in the row of state {state}"
        )
    _check_sums(host.sum(axis=1, dtype=np.float64), host.dtype)


def _check_sums(sums: np.ndarray, dtype) -> None:
    allowed = 1e-8 if dtype == np.float64 else 1e-4
    wrong = ~(np.abs(sums - 1) <= allowed)
    if wrong.any():
        state = int(np.argmax(wrong))
        raise ValueError(
            f"q: the row of state {state} sums to {sums[state]:.9g}, expected 1: divide each row "
            "by its sum"
        )


def _check_function(q: Callable, cost: Array) -> jax.tree_util.Partial:
    shape = jax.eval_shape(q, cost)
    if getattr(shape, "shape", None) != cost.shape:
        raise ValueError(f"q: expected a function of (n,) to (n,) = {cost.shape}, got {shape}")
    q = q if isinstance(q, jax.tree_util.Partial) else jax.tree_util.Partial(q)
    sums = q(jnp.ones_like(cost))
    if is_concrete(sums):
        check_finite("q", sums)
        _check_sums(np.asarray(sums), sums.dtype)
    return q


def _check_connected(q, cost: Array, criterion: str) -> None:
    """The connectivity that the criterion needs, where the entries are known."""
    known = pattern(q)
    if known is None or not is_concrete(cost):
        if criterion == "total":
            stay_probabilities(q)
        return
    absorbing = known.diagonal() & (np.diff(known.indptr) == 1)
    if criterion == "average":
        pair = first_unreachable(known)
        if pair is not None:
            also = ""
            if absorbing.any() and absorbing.size > 1:
                also = (
                    f"; state {int(np.argmax(absorbing))} is never left: for the cost until "
                    "absorption say criterion='total'"
                )
            raise ValueError(
                f"q: an average cost needs an irreducible chain, but state {pair[1]} cannot be "
                f"reached from state {pair[0]}{also}"
            )
        return
    costly = absorbing & (np.asarray(cost) != 0)
    if costly.any():
        state = int(np.argmax(costly))
        raise ValueError(
            f"cost: state {state} is never left and costs {float(cost[state])} a step: expected 0"
        )
    inexact = absorbing & (np.asarray(stay_probabilities(q)) != 1)
    if inexact.any():
        raise ValueError(
            f"q: state {int(np.argmax(inexact))} is never left: expected a probability of exactly 1"
        )
    if not absorbing.any():
        raise ValueError(
            "q: a total cost needs an absorbing state (q_ii = 1, cost 0), found none: say "
            "criterion='average'"
        )
    state = first_without_exit(known, absorbing)
    if state is not None:
        raise ValueError(f"q: state {state} can reach no absorbing state, so its cost is infinite")
