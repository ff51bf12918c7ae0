"""Experiments of `lyapjax`: the paper's figures with whole proofs, and regions of attraction."""

EXPERIMENTS = (
    *("pendulum", "path_following", "van_der_pol", "saturated_pendulum"),
    *("ducted_fan", "balancing", "cart_pole", "quadrotor", "beyond", "compare"),
    *("table1", "roa", "sos", "custom"),
)
