"""What is learned, and how: a Lyapunov function and a controller, in one compiled loop.

lqr             the linear regulator and its quadratic Lyapunov function
conditions      lie_derivative, lyapunov_risk
networks        Lyapunov functions and controllers as flax modules
falsifier       falsify, boundary_minimum: counterexamples by gradient search
objective       Recipe: what is minimised, and how
warmup          from a random gain to one that stabilises
learner         initialise, learn: Algorithm 1 as one compiled loop
checkpoint      the learner's state as a file
"""
