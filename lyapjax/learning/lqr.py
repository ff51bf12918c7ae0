"""The linear–quadratic regulator of a system's linearisation, and its quadratic Lyapunov function.

    A'P + P A - P B R⁻¹ B'P + Q = 0,        K = -R⁻¹ B'P,        u = u* + K (x - x*)

so that (A + BK)'P + P (A + BK) = -(Q + K'R K). Without input this is the Lyapunov equation
A'P + P A = -Q.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from lyapjax.systems.system import System

MODE = 1e-9  # relative: a mode's distance from being uncontrollable, below which it counts as such


class Regulator(NamedTuple):
    """A linear controller and the quadratic Lyapunov function that belongs to it.

        u = u* + K (x - x*),        V = (x - x*)'P (x - x*)

    Attributes:
      K: (m, n) gain.
      P: (n, n) symmetric, positive definite.
      decay: (n, n) symmetric; dV/dt = -(x - x*)'decay (x - x*) for the linearisation.
      eigenvalues: (n,) of A + B K, complex.

    Examples:
      >>> import lyapjax as ly
      >>> ly.lqr(ly.systems.double_integrator()).P.round(6).tolist()
      [[1.732051, 1.0], [1.0, 1.732051]]
    """

    K: np.ndarray
    P: np.ndarray
    decay: np.ndarray
    eigenvalues: np.ndarray


def _weight(name: str, value, size: int, *, strict: bool) -> np.ndarray:
    if value is None:
        return np.eye(size)
    try:
        matrix = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a matrix of real numbers, got {value!r}") from error
    if matrix.shape != (size, size):
        raise ValueError(f"{name}: expected shape ({size}, {size}), got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{name}: expected finite values, got {matrix.tolist()}")
    scale = np.abs(matrix).max(initial=0)
    if np.abs(matrix - matrix.T).max(initial=0) > 1e-12 * scale:
        raise ValueError(f"{name}: expected a symmetric matrix, got {matrix.tolist()}")
    least = np.linalg.eigvalsh(matrix).min(initial=np.inf)
    if least <= 0 if strict else least < -1e-12 * scale:
        kind = "positive definite" if strict else "positive semidefinite"
        raise ValueError(f"{name}: expected {kind}, got the eigenvalue {least:.6g}")
    return (matrix + matrix.T) / 2


def _number(value: complex) -> str:
    return f"{value.real:.6g}" if abs(value.imag) < 1e-12 else f"{value:.6g}"


def check_modes(A: np.ndarray, B: np.ndarray, Q: np.ndarray) -> None:
    """Refuse, by name, what has no stabilising regulator with P > 0.

    A mode λ with left vector w is uncontrollable if w'B = 0, that is
    if [A - λI, B] loses rank; and unobservable in the cost if [A - λI; Q] does.
    """
    size = max(1.0, np.abs(A).max())
    for mode in np.linalg.eigvals(A):
        shifted = A - mode * np.eye(len(A))
        margin = MODE * size
        if mode.real >= -margin:
            reach = np.linalg.svd(np.hstack([shifted, B]), compute_uv=False)[-1]
            if reach <= MODE * max(size, np.abs(B).max(initial=0)):
                if not B.size:
                    raise ValueError(
                        f"system: its equilibrium is not stable and there is no input: the "
                        f"linearisation has the eigenvalue {_number(mode)}"
                    )
                raise ValueError(
                    f"system: the linearisation is not stabilisable (nor controllable): no input "
                    f"reaches the mode with eigenvalue {_number(mode)}; choose another input, or "
                    "remove the state it belongs to"
                )
        seen = np.linalg.svd(np.vstack([shifted, Q]), compute_uv=False)[-1]
        if seen <= margin * max(1.0, np.abs(Q).max()):
            raise ValueError(
                f"Q: the cost does not see the mode with eigenvalue {_number(mode)}, so P is not "
                "positive definite; make Q positive definite"
            )


def lqr(system: System, Q=None, R=None) -> Regulator:
    """The LQR gain and its quadratic Lyapunov matrix, at the equilibrium.

        A'P + P A - P B R⁻¹ B'P + Q = 0,        K = -R⁻¹ B'P

    with A = ∂f/∂x and B = ∂f/∂u by automatic differentiation. A system without input must be
    stable; its P solves A'P + P A = -Q.

    Args:
      system: the system.
      Q: (n, n) positive semidefinite weight of the states; the identity by default.
      R: (m, m) positive definite weight of the inputs; the identity by default.

    Returns:
      `Regulator`.

    Raises:
      ValueError: a weight of the wrong shape or not (semi)definite; a linearisation that cannot be
        stabilised, named with its mode; a mode that the cost does not see.

    Reference:
      Chang, Roohi & Gao, section 2. Departure: their start gain of the pendulum is not the LQR gain
      of Q = I, R = 1 (ERRATA).

    Examples:
      >>> import lyapjax as ly
      >>> ly.lqr(ly.systems.inverted_pendulum()).K.round(3).tolist()
      [[-1.977, -0.976]]
    """
    if not isinstance(system, System):
        raise ValueError(f"system: expected a System, got {type(system).__name__}")
    A, B = system.linearisation()
    Q = _weight("Q", Q, system.state_dim, strict=False)
    R = _weight("R", R, system.control_dim, strict=True)
    check_modes(A, B, Q)
    if system.control_dim:
        try:
            P = scipy.linalg.solve_continuous_are(A, B, Q, R)
        except (np.linalg.LinAlgError, ValueError) as error:
            raise ValueError(
                f"system: no Riccati solution, it is too close to one that cannot be "
                f"stabilised ({error}); rescale states and inputs, or Q and R"
            ) from error
        K = -np.linalg.solve(R, B.T @ P)
    else:
        P, K = scipy.linalg.solve_continuous_lyapunov(A.T, -Q), np.zeros((0, len(A)))
    P = (P + P.T) / 2
    if not np.linalg.eigvalsh(P)[0] > 0:
        raise ValueError("Q: P came out not positive definite; make Q positive definite")
    closed = A + B @ K
    return Regulator(K, P, Q + K.T @ R @ K, np.linalg.eigvals(closed))
