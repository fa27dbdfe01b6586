"""How far a run had to bend the law: thermodynamic length and total discrepancy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from editor.particles import weighted_variance


@dataclass
class Thermometer:
    """Adds up Lambda = integral of sqrt(Var g_t) dt and D = integral of Var g_t dt, where g_t = dA/dt.

    The variance is that of the weighted particles; a search or control has no weights, so its particles count alike,
    and a single one has variance 0. D >= Lambda^2 over a way of length 1, with equality where the speed
    sqrt(Var g_t) is constant. Zero for a run that need not bend the law at all.
    """

    length: float = 0.0
    discrepancy: float = 0.0
    variance: float = 0.0

    def spend(self, increment: Tensor, log_weights: Tensor, dt: float) -> None:
        """Count the increments of A (N,) over a time dt of particles that had these weights before."""
        spent = weighted_variance(increment, log_weights)
        self.variance = spent / dt**2
        self.length += math.sqrt(spent)
        self.discrepancy += spent / dt

    def report(self) -> dict[str, float]:
        return {"variance": self.variance, "length": self.length, "discrepancy": self.discrepancy}
