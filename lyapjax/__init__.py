"""Controllers with neural Lyapunov functions, proved stable.

Write f(x, u) once, as a `System`; learn a controller and a Lyapunov function; prove that every
trajectory from a level set converges; keep the proof in a file that anyone can check.

    systems         Ball, Box, System; pendulum, path following, ducted fan, n links and others
    learning        networks, the linear regulator, falsify, learn
    synthesis       synthesize: learn, falsify, verify, until the proof closes
    growth          grow: learn a V and a controller for it, of as large a region as it gets
    readers         one JAX function, many readings: enclose, linear bounds, ball arithmetic, jets
    proofs          verify: the whole proof; prove, verify_shell, verify_region
    certificates    a proof as a file; replay: the file checked again
    dreal           smt2, dreal.check: the same statements for dReal
    archive         arrays in one file, complete or not at all
    baselines       sos: Lyapunov functions by sums of squares, the classical baseline

Each of these packages says in its first lines what its modules are.
"""

from lyapjax import dreal, systems
from lyapjax.baselines.polynomials import Polynomial
from lyapjax.baselines.sos import SumOfSquares, sos
from lyapjax.certificates.certificate import Certificate
from lyapjax.certificates.replay import Replay, replay
from lyapjax.certificates.writing import certificate, region_certificate
from lyapjax.dreal.smt import smt2
from lyapjax.growth import Candidate, grow, verify_candidate
from lyapjax.learning.conditions import lie_derivative, lyapunov_risk
from lyapjax.learning.falsifier import Falsification, boundary_minimum, falsify
from lyapjax.learning.learner import (
    History,
    LearnerState,
    LearnerStatus,
    add_counterexamples,
    initialise,
    learn,
)
from lyapjax.learning.lqr import Regulator, lqr
from lyapjax.learning.networks import (
    LinearController,
    SaturatedController,
    StructuredLyapunov,
    TanhController,
    TanhLyapunov,
    linear_controller,
    quadratic_lyapunov,
)
from lyapjax.learning.objective import Recipe
from lyapjax.proofs.attraction import Region, verify_region
from lyapjax.proofs.local import LocalCertificate
from lyapjax.proofs.obligations import Verification, verify
from lyapjax.proofs.proving import Proof, Verdict, prove
from lyapjax.proofs.shells import verify_shell
from lyapjax.readers.ball import evaluate_balls
from lyapjax.readers.enclosure import enclose
from lyapjax.readers.intervals import Interval
from lyapjax.readers.program import Program, trace
from lyapjax.synthesis import Result, synthesize
from lyapjax.systems.domains import Ball, Box
from lyapjax.systems.system import System

__all__ = [
    "Ball",
    "Box",
    "Candidate",
    "Certificate",
    "Falsification",
    "History",
    "Interval",
    "LearnerState",
    "LearnerStatus",
    "LinearController",
    "LocalCertificate",
    "Polynomial",
    "Program",
    "Proof",
    "Recipe",
    "Region",
    "Regulator",
    "Replay",
    "Result",
    "SaturatedController",
    "StructuredLyapunov",
    "SumOfSquares",
    "System",
    "TanhController",
    "TanhLyapunov",
    "Verdict",
    "Verification",
    "add_counterexamples",
    "boundary_minimum",
    "certificate",
    "dreal",
    "enclose",
    "evaluate_balls",
    "falsify",
    "grow",
    "initialise",
    "learn",
    "lie_derivative",
    "linear_controller",
    "lqr",
    "lyapunov_risk",
    "prove",
    "quadratic_lyapunov",
    "region_certificate",
    "replay",
    "smt2",
    "sos",
    "synthesize",
    "systems",
    "trace",
    "verify",
    "verify_candidate",
    "verify_region",
    "verify_shell",
]
