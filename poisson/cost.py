"""Operation counts: additions, subtractions, multiplications and divisions alike."""

from poisson.discretisation import check_num_points
from poisson.substructuring import BLOCK, DIRECT

METHODS = ("thomas", "toeplitz", "dense_lu", "green")


def green_flops(m: int) -> int:
    if m <= DIRECT:
        return m * (2 * m - 1)
    blocks, rest = divmod(m, BLOCK)
    products = blocks * BLOCK * (2 * BLOCK - 1) + rest * (2 * rest - 1)
    moments = 2 * m * 2
    interpolation = 4 * blocks * BLOCK + 2 * rest
    return products + moments + interpolation + green_flops(blocks)


def flops(method: str, n: int) -> int:
    """How many floating-point operations a method needs on a grid of n points.

        thomas 8 m - 7,    toeplitz 4 m - 3,    dense_lu (2/3) m³ + 2 m²,    green about 73 m

    with m = n - 2 unknowns; the stored fractions of toeplitz are not counted, and the operations of
    green are those of matrix products.

    Args:
      method: "thomas", "toeplitz", "dense_lu" or "green".
      n: number of grid points, at least 3.

    Returns:
      The count, an integer; leading orders only for dense_lu and green.

    Raises:
      ValueError: an unknown method, or `n` below 3.

    Reference:
      Rustad & Falmår (2020), sections III.A to III.C. Departure: they count 11 n for the general
      algorithm (3 a step for the back substitution, which needs 2, and the denominator twice) and
      4 n for the triangular solves of LU, which cost 2 n² together.

    Examples:
      >>> import poisson
      >>> poisson.flops("thomas", 1002), poisson.flops("toeplitz", 1002)
      (7993, 3997)
    """
    m = check_num_points(n) - 2
    if method == "thomas":
        return 8 * m - 7 if m > 1 else 1
    if method == "toeplitz":
        return 4 * m - 3
    if method == "dense_lu":
        return round(2 * m**3 / 3) + 2 * m * m
    if method == "green":
        return green_flops(m)
    raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
