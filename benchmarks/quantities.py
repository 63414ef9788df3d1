"""Numbers as people read them: 3210000 tokens/s is 3.21 M tokens/s."""

from collections.abc import Sequence
from statistics import median

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SECONDS = ((1.0, "s"), (1e-3, "ms"))


def _scale(value: float, unit: str) -> tuple[float, str]:
    """What to divide by, and what to write after the number."""
    if unit == "s":
        return next(((scale, f" {name}") for scale, name in _SECONDS if abs(value) >= scale), (1e-6, " us"))
    if unit in ("%", "x"):
        return 1.0, " %" if unit == "%" else "x"
    scale, prefix = next(((scale, name) for scale, name in _LARGE if abs(value) >= scale), (1.0, ""))
    if unit.startswith("bytes"):
        return scale, f" {prefix}B{unit[5:]}" if prefix else f" {unit}"
    return scale, f" {prefix} {unit}" if prefix else f" {unit}"


def quantity(value: float, unit: str) -> str:
    """Three digits, or all of those before the point.

    Units with a prefix of their own: ``s`` (ms and us below a second), ``bytes`` and ``bytes/s`` (kB, MB, GB: powers of ten).
    ``%`` and ``x`` take none. Anything else, such as ``tokens/s``, gets k, M, G or T before it.
    """
    scale, suffix = _scale(value, unit)
    return f"{digits(value / scale)}{suffix}"


def measured(values: Sequence[float], unit: str) -> str:
    """Median and range of the repeats: ``3.2 M tokens/s (2.9 to 3.4, 5 runs)``."""
    middle = median(values)
    if len(values) == 1:
        return f"{quantity(middle, unit)} (one run)"
    scale, _ = _scale(middle, unit)
    low, high = digits(min(values) / scale), digits(max(values) / scale)
    return f"{quantity(middle, unit)} ({low} to {high}, {len(values)} runs)"


def digits(value: float) -> str:
    """`12.34` -> 12.3, `0.1234` -> 0.123, `1234.5` -> 1,234 (ties to even), `2` -> 2."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
