"""What runs in dReal's own process: the program as its expressions, and its answer."""

import dreal as d
import numpy as np

from lyapjax.dreal.smt import Algebra, terms


def algebra() -> Algebra:
    """dReal's expressions and formulas."""

    def truth(p: bool):
        return d.Formula.TRUE() if p else d.Formula.FALSE()

    one = d.Expression(1.0)
    names = ("sqrt", "exp", "log", "tanh", "sin", "cos", "tan", "atan", "asin", "acos")
    operations = {name: getattr(d, name) for name in (*names, "sinh", "cosh")}
    operations |= {
        "abs": abs,
        "max": d.Max,
        "min": d.Min,
        "and": d.And,
        "or": d.Or,
        "not": d.Not,
        "truth": truth,
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x / y,
        "neg": lambda x: -x,
        "square": lambda x: d.pow(x, d.Expression(2.0)),
        "integer_pow": lambda x, n: d.pow(x, d.Expression(float(n))),
        "rsqrt": lambda x: one / d.sqrt(x),
        "log1p": lambda x: d.log(one + x),
        "expm1": lambda x: d.exp(x) - one,
        "sech2": lambda x: one - d.pow(d.tanh(x), d.Expression(2.0)),
        "logistic": lambda x: one / (one + d.exp(-x)),
        "dlogistic": lambda x: (one - d.pow(d.tanh(x / 2.0), d.Expression(2.0))) / 4.0,
        "sign": lambda x: d.if_then_else(x > 0, one, d.if_then_else(x < 0, -one, one - one)),
        "select": lambda p, first, second: d.if_then_else(p, second, first),
        "indicator": lambda p: d.if_then_else(p, one, one - one),
        "lt": lambda x, y: x < y,
        "le": lambda x, y: x <= y,
        "gt": lambda x, y: x > y,
        "ge": lambda x, y: x >= y,
        "eq": lambda x, y: x == y,
        "ne": lambda x, y: x != y,
    }
    return Algebra(d.Expression, operations)


def answer(program, lo, hi, delta: float) -> list[float] | None:
    """None for unsat, else the middle of dReal's box."""
    names = [d.Variable(f"x{i}") for i in range(len(lo))]
    inputs = np.empty(len(lo), object)
    inputs[:] = [d.Expression(name) for name in names]
    (margin, *regions), undefined = terms(program, algebra(), [inputs])
    wrong = margin[()] >= 0
    for condition in undefined:
        wrong = d.Or(wrong, condition)
    formula = wrong
    for region in regions:
        formula = d.And(formula, region[()] <= 0)
    for x, low, high in zip(names, lo.tolist(), hi.tolist()):
        formula = d.And(formula, x >= low, x <= high)
    box = d.CheckSatisfiability(formula, delta)
    return None if box is None else [(box[x].lb() + box[x].ub()) / 2 for x in names]
