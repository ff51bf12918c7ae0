"""A ball on a beam that can only be tilted so far: an example for `custom --module`."""

import jax.numpy as jnp

import lyapjax as ly


def system() -> ly.System:
    """Position and velocity of the ball; the input is the beam's angle."""

    def f(x, u):
        return jnp.stack([x[1], 7.0 * jnp.sin(u[0]) - 0.1 * x[1]])

    return ly.System(
        f,
        2,
        1,
        domain=1.0,
        input_bounds=((-0.4,), (0.4,)),
        name="ball_on_beam",
        state_names=("position", "velocity"),
        state_units=("m", "m/s"),
        control_names=("angle of the beam",),
        control_units=("rad",),
    )
