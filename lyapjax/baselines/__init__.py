"""What the field uses today, to compare with.

polynomials     Polynomial; Taylor polynomials of JAX functions
sos             sos: Lyapunov functions by sums of squares
"""
