"""Proofs as files, and the check that shares no arithmetic with what proved them.

certificate     Certificate: a proof as a file
claims          what a file claims, in terms of derivatives in ball arithmetic
covers          whether the boxes cover what they have to
replay          replay: the file checked again
"""
