"""Proofs by branch and bound: of an inequality, of a level set, of a region in six dimensions.

statements      what is to be proved, read by one program; functions traced once
proving         prove: an inequality on a region, by branch and bound
regions         domains as a proof sees them, volumes
admissible      what no proof can be made of
local           the ellipsoid around the equilibrium
obligations     verify: the whole proof
shells          verify_shell: the paper's own statement
attraction      verify_region: the region of a quadratic V, in six dimensions and more
regional        V̇ as a quadratic form, and branch and bound with it
checkpoint      the state of an unfinished proof in a file
sectors         the same for loops that are nonlinear in many coordinates: factors as variables
definite        whether a form is negative in a box and a ball: the S-procedure
"""
