"""Problems to try: the paper's two examples in closed form, gridworlds, random chains, graphs."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from scipy.sparse import csgraph

from klcontrol.bellman import log_sum
from klcontrol.dynamics import Neighbours, as_neighbours
from klcontrol.problem import Problem, floating_array


class Closed(NamedTuple):
    """A problem whose solution is known in closed form.

        λ* = exp(-β ρ*),        z*_i = exp(-β Φ_i)

    Attributes:
      problem: the problem.
      lam: () λ*.
      rho: () optimal average cost.
      value: (n,) Φ.
      invariant: (n,) the invariant law of the optimally controlled chain.

    Examples:
      >>> import klcontrol
      >>> klcontrol.examples.boltzmann([0.0, 0.0]).lam
      Array(1., dtype=float64)
    """

    problem: Problem
    lam: Array
    rho: Array
    value: Array
    invariant: Array


class Gridworld(NamedTuple):
    """A walk on the free cells of a grid.

        q: to stay, or to step to a free neighbouring cell, all equally probable

    Attributes:
      problem: the problem, its q as `Neighbours`.
      cells: (n, axes) integers: the cell of each state.
      states: integers in the shape of the grid: the state of each cell, -1 for walls.
      goals: the goals' states.

    Examples:
      >>> import klcontrol
      >>> world = klcontrol.examples.gridworld((2, 3), goals=[(0, 0)])
      >>> world.states.tolist(), world.problem.cost.tolist()
      ([[0, 1, 2], [3, 4, 5]], [0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    """

    problem: Problem
    cells: Array
    states: Array
    goals: Array


def boltzmann(cost, beta=1.0) -> Closed:
    """Example 2.2: steps independent of the state, by the Boltzmann distribution of the costs.

        q_ij = exp(-β c_j) / Z,        λ* = Σ exp(-2β c_k) / Σ exp(-β c_k),        z_i ∝ exp(-β c_i)

    Args:
      cost: (n,) costs.
      beta: () inverse temperature.

    Returns:
      `Closed`, with q dense.

    Raises:
      ValueError: costs or beta, as in `Problem`.

    Reference:
      The paper's Example 2.2.

    Examples:
      >>> import jax.numpy as jnp, klcontrol
      >>> example = klcontrol.examples.boltzmann([0.0, 1.0, 2.0], beta=2.0)
      >>> found = klcontrol.solve(example.problem)
      >>> bool(jnp.abs(found.rho - example.rho) < 1e-14)
      True
    """
    cost = floating_array("cost", cost)
    beta = floating_array("beta", beta).astype(cost.dtype)
    return independent(jax.nn.softmax(-beta * cost), cost, beta)


def independent(probabilities, cost, beta=1.0) -> Closed:
    """Example 2.3: steps independent of the state, by any distribution.

        q_ij = q_j,        λ* = Σ_k q_k exp(-β c_k),        z_i ∝ exp(-β c_i)

    Args:
      probabilities: (n,) the distribution of each step.
      cost: (n,) costs.
      beta: () inverse temperature.

    Returns:
      `Closed`, with q dense.

    Raises:
      ValueError: as in `Problem`.

    Reference:
      The paper's Example 2.3.

    Examples:
      >>> import klcontrol
      >>> example = klcontrol.examples.independent([0.25, 0.75], [0.0, 1.0])
      >>> print(f"{example.lam:.6f}")
      0.525910
    """
    cost = floating_array("cost", cost)
    q = floating_array("probabilities", probabilities).astype(cost.dtype)
    problem = Problem(jnp.broadcast_to(q, cost.shape * 2), cost, beta)
    weights = jnp.log(q) - problem.beta * cost
    log_lam = log_sum(weights)
    value = cost + log_sum(-problem.beta * cost) / problem.beta
    law = jnp.exp(weights - log_lam)
    return Closed(problem, jnp.exp(log_lam), -log_lam / problem.beta, value, law)


def gridworld(
    shape, *, goals, walls=None, cost=1.0, beta=1.0, criterion: str = "average"
) -> Gridworld:
    """A gridworld: every step costs, but at the goals.

        c = 0 at the goals, `cost` elsewhere

    Cells that no goal can be reached from are left out, so a goal need not see the whole grid.
    Built without a loop over states: a million cells take about a second.

    Args:
      shape: the grid's extents; any number of axes.
      goals: cells of the goals, (g, axes).
      walls: boolean array of that shape, true where no one can be; none by default.
      cost: cost of a step: a number, or an array of that shape.
      beta: inverse temperature.
      criterion: "average"; or "total", where the goals absorb.

    Returns:
      `Gridworld`, the states in the order of the cells.

    Raises:
      ValueError: walls or cost of another shape, a goal outside or in a wall, or two goals that
        are not connected (average).

    Reference:
      Todorov, Linearly-solvable Markov decision problems (2007).

    Examples:
      >>> import klcontrol
      >>> world = klcontrol.examples.gridworld((20, 20), goals=[(3, 4)], criterion="total")
      >>> solution = klcontrol.solve(world.problem)
      >>> int(solution.value.argmax()) == int(world.states[19, 19])
      True
    """
    shape = tuple(int(extent) for extent in shape)
    free = np.ones(shape, bool) if walls is None else ~np.asarray(walls, bool)
    if free.shape != shape:
        raise ValueError(f"walls: expected shape {shape}, got {free.shape}")
    goals = np.atleast_2d(np.asarray(goals))
    if goals.ndim != 2 or goals.shape[1] != len(shape) or goals.size == 0:
        raise ValueError(f"goals: expected cells of {len(shape)} coordinates, got {goals.tolist()}")
    for goal in map(tuple, goals.tolist()):
        inside = all(0 <= g < extent for g, extent in zip(goal, shape))
        if not inside or not free[goal]:
            raise ValueError(f"goals: expected free cells of a grid of {shape}, got {goal}")
    number = np.where(free, np.cumsum(free, dtype=np.int32).reshape(shape) - 1, np.int32(-1))
    successors = _moves(number)[free]
    kept = _connected(successors, number[tuple(goals.T)])
    renumber = np.append(np.where(kept, np.cumsum(kept, dtype=np.int32) - 1, -1), np.int32(-1))
    states = renumber[number]
    successors = renumber[successors[kept]].astype(np.int32, copy=False)
    n = successors.shape[0]
    goal_states = states[tuple(goals.T)]
    possible = successors >= 0
    if criterion == "total":
        possible[goal_states, 1:] = False  # the first move is to stay
    probabilities = possible / possible.sum(axis=1, keepdims=True)
    successors = np.where(possible, successors, np.arange(n, dtype=np.int32)[:, None])
    costs = np.asarray(cost, float)
    if costs.ndim and costs.shape != shape:
        raise ValueError(f"cost: expected a number or shape {shape}, got {costs.shape}")
    cells = np.argwhere(states >= 0)
    costs = np.array(np.broadcast_to(costs, shape)[states >= 0])
    costs[goal_states] = 0
    q = Neighbours(jnp.asarray(successors), jnp.asarray(probabilities))
    problem = Problem(q, costs, beta, criterion=criterion)
    return Gridworld(problem, jnp.asarray(cells), jnp.asarray(states), jnp.asarray(goal_states))


def _moves(number: np.ndarray) -> np.ndarray:
    """The numbers of a cell and of its neighbours, on a new last axis; -1 where there is none."""
    axes = number.ndim
    found = np.full((*number.shape, 1 + 2 * axes), -1, np.int32)
    found[..., 0] = number
    for axis in range(axes):
        ahead = [slice(None)] * axes
        behind = [slice(None)] * axes
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        found[(*ahead, 1 + 2 * axis)] = number[tuple(behind)]
        found[(*behind, 2 + 2 * axis)] = number[tuple(ahead)]
    return found


def _connected(successors: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Mask of what is connected with any source; moves go both ways."""
    n = successors.shape[0]
    possible = successors >= 0
    indptr = np.append(0, np.cumsum(possible.sum(axis=1)))
    graph = scipy.sparse.csr_array(
        (np.ones(indptr[-1], bool), successors[possible], indptr), shape=(n, n)
    )
    _, label = csgraph.connected_components(graph, directed=False)
    return np.isin(label, label[sources])


def random_chain(key, num_states: int, num_successors: int, *, cost=1.0, beta=1.0) -> Problem:
    """A random sparse chain: each state has random successors, with random probabilities.

        i -> i, i -> i + 1 (mod n), and num_successors - 2 others, weights exponential

    The first two make it irreducible and aperiodic.

    Args:
      key: of jax.random.
      num_states: n.
      num_successors: d, at least 2.
      cost: costs are uniform between 0 and this.
      beta: inverse temperature.

    Returns:
      `Problem` with `Neighbours`.

    Raises:
      ValueError: fewer than two successors, or no state.

    Reference:
      None; problems for tests and benchmarks.

    Examples:
      >>> import jax, klcontrol
      >>> p = klcontrol.examples.random_chain(jax.random.key(0), 1000, 8)
      >>> p.q.indices.shape
      (1000, 8)
    """
    if num_states < 1 or num_successors < 2:
        raise ValueError(
            f"num_successors: expected 2 or more, and a state, got {num_successors} of {num_states}"
        )
    where, weight, price = jax.random.split(key, 3)
    own = jnp.arange(num_states)[:, None]
    others = jax.random.randint(where, (num_states, num_successors - 2), 0, num_states)
    indices = jnp.concatenate([own, (own + 1) % num_states, others], axis=1)
    weights = jax.random.exponential(weight, indices.shape)
    q = weights / weights.sum(axis=1, keepdims=True)
    costs = cost * jax.random.uniform(price, (num_states,))
    return Problem(Neighbours(indices, q), costs, beta)


def random_walk(adjacency, cost, beta=1.0, *, criterion: str = "average") -> Problem:
    """The random walk on a graph: to a neighbour, in proportion to the edge's weight.

        q_ij = a_ij / Σ_k a_ik

    Args:
      adjacency: (n, n) weights >= 0: an array or a sparse matrix of scipy (of a networkx graph:
        networkx.to_scipy_sparse_array(graph)).
      cost: (n,) costs.
      beta: inverse temperature.
      criterion: as in `Problem`.

    Returns:
      `Problem` with `Neighbours`.

    Raises:
      ValueError: a negative weight, a state without successors, or as in `Problem`.

    Reference:
      None; it satisfies detailed balance if a is symmetric, as Proposition 2.1 asks.

    Examples:
      >>> import numpy as np, klcontrol
      >>> path = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
      >>> klcontrol.examples.random_walk(path, [0.0, 1.0, 1.0]).q.probabilities.tolist()
      [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]
    """
    weights = scipy.sparse.csr_array(adjacency).astype(float)
    if (weights.data < 0).any():
        raise ValueError(f"adjacency: expected weights >= 0, got {weights.data.min()}")
    sums = np.asarray(weights.sum(axis=1)).ravel()
    if not (sums > 0).all():
        raise ValueError(f"adjacency: state {int(np.argmin(sums))} has no successor")
    scaled = weights.multiply(1 / sums[:, None]).tocsr()
    return Problem(as_neighbours(scaled), cost, beta, criterion=criterion)
