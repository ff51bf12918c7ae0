"""Continuous systems on a grid, moved by noise: a pendulum, the mountain car."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array
from scipy.sparse import csgraph

from klcontrol.dynamics import Neighbours
from klcontrol.problem import Problem

# Gauss–Hermite quadrature of a normal variable, exact to the fifth moment.
NODES, WEIGHTS = np.array([-(3**0.5), 0.0, 3**0.5]), np.array([1 / 6, 2 / 3, 1 / 6])


class Pendulum(NamedTuple):
    """A pendulum on a grid of angles and speeds.

        θ' = θ + ω dt,        ω' = ω + (g/l sin θ - friction ω) dt + noise √dt w

    Attributes:
      problem: its q as `Neighbours`.
      angle: (n,) θ of each state in rad, 0 upright.
      speed: (n,) ω in rad/s.

    Examples:
      >>> import klcontrol
      >>> world = klcontrol.worlds.pendulum((24, 25))
      >>> bool(abs(world.angle).max() <= 3.15)
      True
    """

    problem: Problem
    angle: Array
    speed: Array


def pendulum(
    shape=(60, 61),
    *,
    max_speed: float = 8.0,
    noise: float = 2.0,
    gravity: float = 9.81,
    length: float = 1.0,
    friction: float = 0.1,
    step: float | None = None,
    beta: float = 1.0,
) -> Pendulum:
    """A pendulum whose torque is noise; control means to bias the noise.

        c = 1 - cos θ + 0.05 ω²,        q by quadrature of the noise and linear interpolation

    A step moves the mean by the dynamics; each of three quadrature nodes of the noise is shared out
    to the four grid points around it, so the mean of a step is exact inside the grid. Speeds are
    held at `max_speed`. States that cannot be left or reached are left out.

    Args:
      shape: numbers of angles and of speeds.
      max_speed: largest speed in rad/s.
      noise: standard deviation of the torque's noise, in rad/s^1.5.
      gravity: in m/s².
      length: in m.
      friction: in 1/s.
      step: time of a step in s; by default as long as the fastest state takes for two angles.
      beta: inverse temperature.

    Returns:
      `Pendulum`.

    Raises:
      ValueError: a grid of fewer than 8 angles or 5 speeds; a number that is not positive.

    Reference:
      Todorov, Efficient computation of optimal actions, PNAS 2009 (controlled diffusions on grids).

    Examples:
      >>> import klcontrol
      >>> world = klcontrol.worlds.pendulum((24, 25))
      >>> s = klcontrol.solve(world.problem)
      >>> bool(abs(world.angle[s.value.argmin()]) < 0.3)
      True
    """
    num_angles, num_speeds = (int(v) for v in shape)
    if num_angles < 8 or num_speeds < 5:
        raise ValueError(f"shape: expected at least 8 angles and 5 speeds, got {tuple(shape)}")
    _check_positive(max_speed=max_speed, noise=noise, gravity=gravity, length=length)
    width = 2 * np.pi / num_angles
    step = 2 * width / max_speed if step is None else step
    _check_positive(step=step)
    speeds = np.linspace(-max_speed, max_speed, num_speeds)
    angle, speed = (
        v.ravel() for v in np.meshgrid(width * np.arange(num_angles), speeds, indexing="ij")
    )
    angle_next = angle + speed * step
    pull = gravity / length * np.sin(angle) - friction * speed
    speed_next = speed + pull * step + noise * np.sqrt(step) * NODES[:, None]
    a = (angle_next / width)[None].repeat(len(NODES), axis=0)
    b = (np.clip(speed_next, -max_speed, max_speed) + max_speed) / (speeds[1] - speeds[0])
    indices, probabilities = _shared_out(a, b, num_angles, num_speeds, periodic=True)
    kept = _recurrent(indices, probabilities)
    number = np.cumsum(kept) - 1
    indices, probabilities = indices[kept], probabilities[kept]
    # The recurrent class is closed, so nothing leads out of it but entries of probability 0.
    indices = np.where(probabilities > 0, number[indices], np.arange(kept.sum())[:, None])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    angle, speed = angle[kept], speed[kept]
    angle = np.where(angle > np.pi, angle - 2 * np.pi, angle)
    cost = 1 - np.cos(angle) + 0.05 * speed**2
    q = Neighbours(jnp.asarray(indices.astype(np.int32)), jnp.asarray(probabilities))
    return Pendulum(Problem(q, cost, beta), jnp.asarray(angle), jnp.asarray(speed))


class MountainCar(NamedTuple):
    """The mountain car on a grid of positions and speeds.

        v' = v - 0.0025 cos(3 x) + noise w,        x' = x + v'        (a step of the car)

    Attributes:
      problem: its q as `Neighbours`, until the goal is reached (total criterion).
      position: (n,) x of each state.
      speed: (n,) v, a step of the car.

    Examples:
      >>> import klcontrol
      >>> world = klcontrol.worlds.mountain_car((30, 21))
      >>> world.problem.criterion, int(world.problem.absorbing.sum()) > 0
      ('total', True)
    """

    problem: Problem
    position: Array
    speed: Array


def mountain_car(
    shape=(90, 61),
    *,
    noise: float = 1e-3,
    cost: float = 0.02,
    steps: int | None = None,
    goal: float = 0.5,
    beta: float = 1.0,
) -> MountainCar:
    """A car in a valley, too weak to climb out at once; its engine is noise.

        c = cost a step of the car until x >= goal,        -1.2 <= x <= 0.6,        |v| <= 0.07

    A step of the chain is several steps of the car: the mean moves by the car's equations, with the
    wall at the left that stops it; the noise of these steps is added to the speed at the end, by
    quadrature. Points are shared out to the four grid points around them.

    Args:
      shape: numbers of positions and of speeds.
      noise: standard deviation of a step's change of speed; the usual engine gives ±1e-3.
      cost: of a step of the car.
      steps: of the car in a step of the chain; by default as many as the fastest car needs for two
        positions.
      goal: position from which on the car has arrived.
      beta: inverse temperature.

    Returns:
      `MountainCar`.

    Raises:
      ValueError: a grid of fewer than 10 positions or 5 speeds; a number that is not positive; a
        goal outside (-0.5, 0.6].

    Reference:
      Moore (1990); Sutton and Barto, Reinforcement Learning, example 10.1. Departure: noise instead
      of an engine, whose use costs its Kullback–Leibler divergence.

    Examples:
      >>> import klcontrol
      >>> world = klcontrol.worlds.mountain_car((30, 21))
      >>> s = klcontrol.solve(world.problem)
      >>> bool(s.value.max() > s.value[world.position > 0.4].max() > 0)
      True
    """
    num_positions, num_speeds = (int(v) for v in shape)
    if num_positions < 10 or num_speeds < 5:
        raise ValueError(f"shape: expected at least 10 positions and 5 speeds, got {tuple(shape)}")
    _check_positive(noise=noise, cost=cost)
    if not -0.5 < goal <= 0.6:
        raise ValueError(f"goal: expected a position in (-0.5, 0.6], got {goal!r}")
    positions, speeds = np.linspace(-1.2, 0.6, num_positions), np.linspace(-0.07, 0.07, num_speeds)
    width, speed_width = positions[1] - positions[0], speeds[1] - speeds[0]
    steps = max(1, round(2 * width / 0.07)) if steps is None else steps
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: expected a positive integer, got {steps!r}")
    position, speed = (v.ravel() for v in np.meshgrid(positions, speeds, indexing="ij"))
    x, v = position.copy(), speed.copy()
    for _ in range(steps):
        v = np.clip(v - 0.0025 * np.cos(3 * x), -0.07, 0.07)
        x = np.clip(x + v, -1.2, 0.6)
        v = np.where((x == -1.2) & (v < 0), 0.0, v)
    v = np.clip(v + noise * np.sqrt(steps) * NODES[:, None], -0.07, 0.07)
    a, b = ((x + 1.2) / width)[None].repeat(len(NODES), axis=0), (v + 0.07) / speed_width
    indices, probabilities = _shared_out(a, b, num_positions, num_speeds, periodic=False)
    there, own = position >= goal, np.arange(position.size)
    indices[there], probabilities[there] = own[there, None], 0.0
    probabilities[there, 0] = 1.0
    costs = np.where(there, 0.0, cost * steps)
    q = Neighbours(jnp.asarray(indices.astype(np.int32)), jnp.asarray(probabilities))
    problem = Problem(q, costs, beta, criterion="total")
    return MountainCar(problem, jnp.asarray(position), jnp.asarray(speed))


def _check_positive(**numbers) -> None:
    for name, value in numbers.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a positive number, got {value!r}")


def _shared_out(a, b, num_a: int, num_b: int, *, periodic: bool) -> tuple[np.ndarray, np.ndarray]:
    """Successors and probabilities, (n, 12), of (nodes, n) points in units of the grid."""
    low_a, low_b = np.floor(a).astype(int), np.minimum(np.floor(b).astype(int), num_b - 2)
    if not periodic:
        low_a = np.minimum(low_a, num_a - 2)
    indices, probabilities = [], []
    for up_a in (0, 1):
        for up_b in (0, 1):
            share_a, share_b = np.clip(a - low_a, 0, 1), np.clip(b - low_b, 0, 1)
            share_a = share_a if up_a else 1 - share_a
            share_b = share_b if up_b else 1 - share_b
            indices.append((low_a + up_a) % num_a * num_b + low_b + up_b)
            probabilities.append(WEIGHTS[:, None] * share_a * share_b)
    return np.concatenate(indices).T, np.concatenate(probabilities).T


def _recurrent(indices: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mask of the largest strongly connected class that is closed."""
    n, d = indices.shape
    used = (probabilities > 0).ravel()
    rows, columns = np.repeat(np.arange(n), d)[used], indices.ravel()[used]
    graph = scipy.sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(n, n))
    count, label = csgraph.connected_components(graph, connection="strong")
    closed = np.ones(count, bool)
    closed[label[rows[label[rows] != label[columns]]]] = False
    sizes = np.bincount(label, minlength=count) * closed
    return label == np.argmax(sizes)
