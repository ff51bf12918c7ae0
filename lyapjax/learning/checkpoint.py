"""A learner's state in a file, so that a run that is killed goes on where it was."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lyapjax import archive
from lyapjax.learning.learner import LearnerState
from lyapjax.learning.objective import Recipe
from lyapjax.systems.system import System


def stamp(system: System, recipe: Recipe, start: str, key) -> str:
    """What a state must agree in, to be gone on from: all that determines the run."""
    names = system.name, system.equilibrium, system.domain, system.input_bounds
    bits = np.asarray(jax.random.key_data(key)).tolist()
    return repr((names, recipe, start, bits))


def _plain(state: LearnerState) -> LearnerState:
    return state._replace(key=jax.random.key_data(state.key))


def save(path, state: LearnerState, what: str) -> None:
    """Write a state; the file appears complete or not at all."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(_plain(state))]
    arrays = {f"leaf {k}": leaf for k, leaf in enumerate(leaves)}
    archive.write(path, {"what": np.array(what), **arrays})


def load(path, like: LearnerState, what: str) -> LearnerState | None:
    """The state of a file, None if there is none; ValueError if it is of another run."""
    path = Path(path)
    if not path.exists():
        return None
    leaves, tree = jax.tree.flatten(_plain(like))
    try:
        with np.load(path, allow_pickle=False) as archive:
            known = str(archive["what"])
            found = [archive[f"leaf {k}"] for k in range(len(leaves))]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ValueError(f"checkpoint: {path} is no state of a learner: {error}") from error
    if known != what or [v.shape for v in found] != [np.shape(v) for v in leaves]:
        raise ValueError(
            f"checkpoint: expected the state of this run in {path}, got one of another system, "
            "recipe, start or key; remove it or name another file"
        )
    state = jax.tree.unflatten(tree, [jnp.asarray(v) for v in found])
    return state._replace(key=jax.random.wrap_key_data(state.key))
