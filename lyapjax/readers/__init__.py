"""One JAX function, many readings: each reader follows the same straight-line program.

program         trace: a JAX function as that program
primitives      the primitives of JAX that readers know, in a few elementary ones
intervals       intervals with outward rounding; `elementary`: tanh, sin, exp and so on
enclosure       enclose: sound interval bounds; `contractions`: of matrix products
linear, planes  linear bounds: every step between two parallel planes
bounds          slopes and the mean value form
compiled        these bounds as compiled code, for batches of boxes; `ranges`: plain ones
spreading       blocks, batches, threads and devices
ball            evaluate_balls: values in ball arithmetic; `jets`: derivatives in it
spans           jets of many boxes at once, by plain NumPy with proved rounding
secants, affine F with f(x) = F(x)(x - x*), to first order in the place within a box; `values` there
sectors         f = F (z, w) with constant F, and each factor that varies a variable w of its own
"""
