"""The 1-D Poisson equation: tridiagonal solvers that are fast, exact to rounding, and certified.

Start with `solve`. The solvers it stands on are public: `green` and `toeplitz` for the matrix
tridiag(-1, 2, -1), `tridiagonal_solve` and its methods for any tridiagonal matrix.

    discretisation   grid, right-hand sides of order 2, 4, 6, closed solutions, the paper's ε
    recurrences      thomas, toeplitz: the paper's eliminations, by scan
    substructuring   green: the discrete Green's function, block by block
    partitioning     partition: general systems, many parts in parallel
    pivoting         lapack, dense_lu
    tridiagonal      tridiagonal_solve chooses among them
    materialising    materialise: an array computed once, whatever XLA fuses
    certificate      certify: a rigorous bound from the residual
    rational         rational_solution: the discrete solution without rounding, to judge by
    solver           solve
"""

from poisson.certificate import Certificate, certify
from poisson.cost import flops
from poisson.discretisation import (
    discrete_solution,
    exact_solution,
    grid,
    relative_error,
    source,
)
from poisson.partitioning import partition
from poisson.pivoting import dense_lu, lapack
from poisson.rational import rational_solution
from poisson.recurrences import thomas, toeplitz
from poisson.solver import Solution, Stats, solve
from poisson.substructuring import green
from poisson.systems import LinearSolution, Status
from poisson.tridiagonal import tridiagonal_solve

__all__ = [
    "Certificate",
    "LinearSolution",
    "Solution",
    "Stats",
    "Status",
    "certify",
    "dense_lu",
    "discrete_solution",
    "exact_solution",
    "flops",
    "green",
    "grid",
    "lapack",
    "partition",
    "rational_solution",
    "relative_error",
    "solve",
    "source",
    "thomas",
    "toeplitz",
    "tridiagonal_solve",
]
