"""Steps of training that use the memory of the step before.

A compiled program asks the system anew for the memory of everything that it has to remember: of all
that the backward pass needs of the forward pass, hundreds of megabytes. On a CPU each of its pages
then costs a fault and is filled with zeros, a sixth of the time of a step. What a program is given
to overwrite it need not ask for. So these arrays are results of the step, which nobody reads, and
the next step is given them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import jaxpr_as_fun

# Of so many bytes on, the system's allocator gives memory back and asks for it anew.
LARGE = 1 << 17


def compile_step(step: Callable, *, sharding=None) -> Callable:
    """A compiled step of training that works in the memory of the one before.

        (state, batch) -> (state, totals)

    As `jax.jit(step, donate_argnums=0)`: the state that it is given is no longer usable. On one
    device, a CPU, it also holds on to the memory of what a backward pass needs, from one step to
    the next, rather than to give it back. Elsewhere it is that and no more: a GPU's memory is not
    given back to the system anyway.

    Args:
      step: as `make_step` returns it.
      sharding: of the state and of the totals; None to leave them where they are.

    Returns:
      `(state, batch) -> (state, totals)`. It belongs to one training run, in one thread.

    Raises:
      ValueError: the step is not one of `make_step`.

    Reference:
      None.

    Examples:
      >>> import jax, jax.numpy as jnp, phydi
      >>> from flax import nnx
      >>> model = phydi.PHMLinear(2, 2, n=2, rngs=nnx.Rngs(0))
      >>> loss_fn = lambda model, batch: {"loss": jnp.sum(model(batch) ** 2, -1)}
      >>> state, step = phydi.make_step(model, loss_fn, phydi.sgd(0.01))
      >>> state = jax.tree.map(jnp.copy, state)  # the model keeps its own
      >>> state, totals = phydi.compile_step(step)(state, jnp.ones((3, 2)))
      >>> int(state.step)
      1
    """
    if not hasattr(step, "keeping"):
        raise ValueError(f"step: expected what `make_step` returns, got {step!r}")
    platform = jax.default_backend()
    number = 1
    if sharding is not None:
        number, platform = len(sharding.device_set), next(iter(sharding.device_set)).platform
    if number == 1 and platform == "cpu":
        return _InPlace(step, sharding)
    return jax.jit(step, donate_argnums=0, out_shardings=sharding)


class _InPlace:
    def __init__(self, step: Callable, sharding):
        self._step, self._sharding = step, sharding
        self._programs, self._workspace = {}, (None, [])

    def __call__(self, state, batch):
        """One step; the state is given away."""
        leaves, structure = jax.tree.flatten((state, batch))
        case = structure, tuple((jnp.shape(x), getattr(x, "dtype", type(x))) for x in leaves)
        if case not in self._programs:
            self._programs[case] = self._program(state, batch)
        run, shapes = self._programs[case]
        before, workspace = self._workspace
        # It is gone if the step fails.
        self._workspace = None, []
        if before != case:
            del workspace
            workspace = [jnp.zeros(x.shape, x.dtype, device=self._sharding) for x in shapes]
        state, totals, workspace = run(state, workspace, batch)
        self._workspace = case, workspace
        return state, totals

    def _program(self, state, batch) -> tuple:
        """The compiled step, and the shapes of what it keeps."""
        # Traced once: for the shapes, then for the program.
        traced = jax.jit(self._keeping).trace(state, batch)
        flat = jaxpr_as_fun(traced.jaxpr)
        shapes = traced.out_info

        def run(state, workspace, batch):
            del workspace
            results = flat(*jax.tree.leaves((state, batch)))
            return jax.tree.unflatten(jax.tree.structure(shapes), results)

        # That the workspace is not read is the point of it.
        run = jax.jit(run, donate_argnums=(0, 1), keep_unused=True, out_shardings=self._sharding)
        return run, shapes[2]

    def _keeping(self, state, batch):
        after, totals, kept = self._step.keeping(state, batch)
        given = {id(x) for x in jax.tree.leaves((state, batch))}
        return after, totals, [x for x in kept if id(x) not in given and _is_large(x)]


def _is_large(x) -> bool:
    is_plain = jnp.issubdtype(x.dtype, jnp.number) or x.dtype == bool
    return is_plain and x.size * x.dtype.itemsize >= LARGE
