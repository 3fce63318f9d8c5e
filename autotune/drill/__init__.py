"""What can go wrong, and drills that cause it on a user's machine and see whether what was promised holds.

`faults` has the table of all faults, `table` the drills that are harmless, `running` runs one.
"""

from autotune.drill._base import Drill, DrillResult, NotHereError, PromiseBrokenError

__all__ = ["Drill", "DrillResult", "NotHereError", "PromiseBrokenError"]
