"""The child process that compares two LaTeX expressions: `python -m prosetting.processors.worker_symbolic`.

One JSON object a line in, one a line out, in order: `{"reference": str, "response": str}` gives
`{"relation": "equal" | "different" | "unsure" | "limit"}`, `limit` for a comparison that was cut short; a first
line `{"ready": true}` says that the imports are done. Every comparison runs in a fork of this process with limits
of memory and of CPU time (not of wall time, so that a busy machine grades alike): computer algebra on hostile
input is ended from outside, never trusted to end by itself, and leaves nothing behind that could change the next
comparison. The process ends with its stdin.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from typing import Any

import sympy  # type: ignore[import-untyped]
from math_verify import LatexExtractionConfig, parse, verify

CPU_LIMIT_S = 0.8
MEMORY_LIMIT_BYTES = 2 << 30
_DIGITS = 30
_UNIT_LETTERS = set("msghlLNJWVAKCFcdPT")
_POINTS = ("7/5", "29/11", "-17/13", "-31/7", "3/23")


def relation_of(reference: str, response: str) -> str:
    """`equal` where math-verify's algebra and the values at fixed points (30 digits) both say so, `different`
    where the values differ at every point, else `unsure`."""
    left, right = _parse(reference), _parse(response)
    if left is None or right is None:
        return "unsure"
    values = _differences(left, right)
    if not values or left.has(sympy.nan, sympy.zoo) or right.has(sympy.nan, sympy.zoo):
        return "unsure"
    if all(gap == 0 for gap in values):
        return "equal" if verify(left, right, timeout_seconds=None) else "unsure"
    if left.free_symbols != right.free_symbols:
        # f(n) = 2n and f(m) = 2m; a letter of the answer may be a value named before, of the reference a unit.
        variables = {str(symbol) for symbol in left.free_symbols} - _UNIT_LETTERS
        is_formula = bool(variables) and not left.is_Symbol  # a lone letter may be one of several choices
        return "different" if is_formula and not right.free_symbols else "unsure"
    # A decimal, or a rational for an irrational, may be rounded: only a wide gap is a difference then.
    rounded = left.has(sympy.Float) or right.has(sympy.Float) or left.is_Rational != right.is_Rational
    return "different" if all(gap > (6e-2 if rounded else 1e-9) for gap in values) else "unsure"


def _parse(latex: str) -> sympy.Expr | None:
    found = parse(f"\\boxed{{{latex}}}", [LatexExtractionConfig()], parsing_timeout=None)
    if not found or not isinstance(found[0], sympy.Expr):
        return None
    return found[0].subs({symbol: sympy.I for symbol in found[0].free_symbols if str(symbol) == "i"})


def _differences(left: sympy.Expr, right: sympy.Expr) -> list[float]:
    """Relative gaps at fixed points (one gap for constants); empty where they cannot be compared."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    if any(str(symbol) in {"C", "c_1", "C_1"} for symbol in symbols):
        return []
    gaps = []
    for shift in range(len(_POINTS) if symbols else 1):
        point = {s: sympy.Rational(_POINTS[(i + shift) % len(_POINTS)]) + i for i, s in enumerate(symbols)}
        a, b = (sympy.N(side.subs(point).doit(), _DIGITS) for side in (left, right))
        if not (a.is_number and b.is_number and a.is_finite and b.is_finite):
            return []
        gap = abs(a - b) / max(abs(a), abs(b), sympy.Integer(1))
        gaps.append(0.0 if gap < sympy.Float(10) ** -(_DIGITS // 2) else float(gap))
    return gaps


def _compare_in_fork(request: dict[str, Any]) -> str:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            sys.settrace(None)  # a tracer's time (coverage, a debugger) would count against the limit
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
            resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
            # SIGPROF's default action ends the process even inside one long C call.
            signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
            relation = relation_of(str(request["reference"]), str(request["response"]))
            os.write(write_end, relation.encode())
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        relation = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return relation or ("limit" if os.WIFSIGNALED(status) else "unsure")


def main() -> None:
    """Serve requests until stdin closes."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    relation_of("x+\\frac{1}{2}", "\\frac{1}{2}+x")  # warms the parser's caches for all forks
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"relation": _compare_in_fork(json.loads(line))}), flush=True)


if __name__ == "__main__":
    main()
