"""Bounded-error estimation with the relaxed Chebyshev centre (not written yet)."""
