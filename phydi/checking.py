"""Checks of arguments: what was expected, what came, and what to do."""

import jax
import jax.numpy as jnp
from jax import Array


def check_key(key):
    """That `key` is a random key, or a ValueError that says how to make one."""
    if not isinstance(key, jax.Array):
        raise ValueError(f"key: expected a random key, such as jax.random.key(0), got {key!r}")
    return key


def check_positive_integer(name: str, value) -> int:
    """`value` as a Python integer of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or int(value) < 1:
        raise ValueError(f"{name}: expected an integer of at least 1, got {value!r}")
    return int(value)


def check_divides(n, **sizes: int) -> int:
    """That n divides every size, or a ValueError that names which does not, and what would."""
    n = check_positive_integer("n", n)
    for name, size in sizes.items():
        size = check_positive_integer(name, size)
        if size % n:
            below, above = size // n * n, -(-size // n) * n
            near = f"{below} or {above}" if below else f"{above}"
            divisors = ", ".join(str(d) for d in range(1, min(size, 16) + 1) if size % d == 0)
            raise ValueError(
                f"{name}: expected a multiple of n = {n}, got {size}; pad it to {near}, "
                f"or choose n among {divisors}"
            )
    return n


def check_option(name: str, value, options: tuple[str, ...]) -> str:
    """That `value` is one of the named options."""
    if value not in options:
        raise ValueError(f"{name}: expected one of {', '.join(options)}, got {value!r}")
    return value


def as_floating(name: str, value, ndim: int | None = None) -> Array:
    """`value` as a real floating array of `ndim` axes; integers are promoted."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: expected real numbers, got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name}: expected real floating numbers, got {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {array.shape}")
    return array


def as_tensor(name: str, value) -> Array:
    """`value` as a multiplication tensor, of shape (n, n, n)."""
    array = as_floating(name, value, 3)
    if len(set(array.shape)) != 1:
        raise ValueError(f"{name}: expected shape (n, n, n), got {array.shape}")
    return array
