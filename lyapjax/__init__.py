"""Controllers with neural Lyapunov functions, proved stable.

Write f(x, u) once, as a `System`; learn a controller and a Lyapunov function; prove that every
trajectory from a level set converges; keep the proof in a file that anyone can check.

    domains         Ball, Box
    system          System
    systems         pendulum, path following, ducted fan, n links and others
    mechanics       poles on carts and on each other
    vehicles        a fan, a quadrotor and a jet that hover
    lqr             lqr: the linear regulator and its quadratic Lyapunov function
    conditions      lie_derivative, lyapunov_risk
    networks        Lyapunov functions and controllers as flax modules
    falsifier       falsify, boundary_minimum: counterexamples by gradient search
    objective       Recipe: what is minimised, and how
    learner         initialise, learn: Algorithm 1 as one compiled loop
    checkpoint      the learner's state as a file
    synthesis       synthesize: learn, falsify, verify, until the proof closes
    program         trace: a JAX function as the straight-line program that every checker reads
    enclosure       enclose: sound interval bounds of any JAX function
    bounds          slopes and the mean value form
    ball            evaluate_balls: the same program in ball arithmetic
    compiled        these bounds as compiled code, for batches of boxes
    statements      what is to be proved, read by one program; functions traced once
    proving         prove: an inequality on a region, by branch and bound
    regions         domains as a proof sees them, volumes
    admissible      what no proof can be made of
    local           the ellipsoid around the equilibrium
    obligations     verify: the whole proof
    shells          verify_shell: the paper's own statement
    attraction      verify_region: the region of a quadratic V, in six dimensions and more
    growth          grow: learn a V and a controller for it, of as large a region as it gets
    regional        V̇ as a quadratic form, and branch and bound with it
    secants, affine F with f(x) = F(x)(x - x*), to first order in the place within a box
    definite        whether a form is negative in a box and a ball: the S-procedure
    certificate     a proof as a file
    jets, claims    derivatives in ball arithmetic, and what a file claims in terms of them
    spans           the same for many boxes at once, by plain NumPy with proved rounding
    covers, replay  replay: the file checked again
    polynomials     Polynomial; Taylor polynomials of JAX functions
    sos             sos: Lyapunov functions by sums of squares, the classical baseline
    smt, dreal      smt2, dreal.check: the same statements for dReal
"""

from lyapjax import dreal, systems
from lyapjax.attraction import Region, verify_region
from lyapjax.ball import evaluate_balls
from lyapjax.certificate import Certificate, certificate
from lyapjax.conditions import lie_derivative, lyapunov_risk
from lyapjax.domains import Ball, Box
from lyapjax.enclosure import enclose
from lyapjax.falsifier import Falsification, boundary_minimum, falsify
from lyapjax.growth import Candidate, grow, verify_candidate
from lyapjax.intervals import Interval
from lyapjax.learner import (
    History,
    LearnerState,
    LearnerStatus,
    add_counterexamples,
    initialise,
    learn,
)
from lyapjax.local import LocalCertificate
from lyapjax.lqr import Regulator, lqr
from lyapjax.networks import (
    LinearController,
    SaturatedController,
    StructuredLyapunov,
    TanhController,
    TanhLyapunov,
    linear_controller,
    quadratic_lyapunov,
)
from lyapjax.objective import Recipe
from lyapjax.obligations import Verification, verify
from lyapjax.polynomials import Polynomial
from lyapjax.program import Program, trace
from lyapjax.proving import Proof, Verdict, prove
from lyapjax.replay import Replay, replay
from lyapjax.shells import verify_shell
from lyapjax.smt import smt2
from lyapjax.sos import SumOfSquares, sos
from lyapjax.synthesis import Result, synthesize
from lyapjax.system import System

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
