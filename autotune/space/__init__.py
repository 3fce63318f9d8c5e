"""The joint space: dimensions, impossible combinations, canonical points and priors."""

from autotune.space.dimensions import Dimensions
from autotune.space.estimate import Estimate, estimate
from autotune.space.points import Space
from autotune.space.priors import PRIORS, Prior
from autotune.space.rules import RULES, Rule, broken_rule

__all__ = ["PRIORS", "RULES", "Dimensions", "Estimate", "Prior", "Rule", "Space", "broken_rule", "estimate"]
