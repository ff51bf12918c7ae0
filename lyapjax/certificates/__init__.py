"""Proofs as files, and the check that shares no arithmetic with what proved them.

certificate     Certificate: a proof as a file, by verify or by verify_region
writing         certificate, region_certificate: proofs become files
claims          what the file of verify claims, in terms of derivatives in ball arithmetic
regions         what the file of verify_region claims, and its check
sectors         the check of its boxes, where it was proved by sectors
factors         programs as linear maps with named factors, in balls
ranges          what a function of one variable takes on over a range
forms           numbers on a box to first order, in balls
slopes          secant matrices and Jacobians of such numbers
covers          whether the boxes cover what they have to
checking        the budget of a check, its failure, definite matrices
replay          replay: a file of either kind checked again
"""
