"""Kullback–Leibler control of Markov chains, exact and online (not written yet)."""
