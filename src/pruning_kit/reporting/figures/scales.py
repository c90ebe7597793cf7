"""Colours and axes of figures: perplexities may spread over many orders of magnitude.

The colours are those of Okabe and Ito (2008), which colour-blind people can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
LOG_ABOVE = 8.0


def explodes(values: Sequence[float] | np.ndarray) -> bool:
    """Whether positive values spread so far that only a logarithmic axis shows them all."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite) & (finite > 0)]
    return finite.size > 1 and bool(finite.max() / finite.min() > LOG_ABOVE)


def scale_perplexity(axes: Axes, values: Sequence[float] | np.ndarray, which: str) -> bool:
    """Make an axis logarithmic where perplexities explode; tells whether it is."""
    logarithmic = explodes(values)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if logarithmic:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        finite = np.asarray(values, dtype=np.float64)
        finite = finite[np.isfinite(finite) & (finite > 0)]
        decades = math.log10(finite.max() / finite.min())
        # numbers need more room beside each other than above each other
        subs = (1.0, 2.0, 5.0) if decades < (2 if which == "x" else 3) else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    return logarithmic


def short_number(value: float) -> str:
    """An axis number: 40, 2,000, 1e+06."""
    huge = value != 0 and (abs(value) >= 1e6 or abs(value) < 1e-3)
    return f"{value:.0e}" if huge else f"{value:,.10g}".replace("-", "−")
