"""Hypercomplex networks that start as the identity (not written yet)."""
