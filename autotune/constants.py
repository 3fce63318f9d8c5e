"""Every constant of measuring and deciding, in one place, with its reason.

Better evidence changes them here. The figures that the reasons give were taken on a shared
two-core machine; runs of one configuration differed there by 5 to 8 %.
"""

from __future__ import annotations

CONFIDENCE = 0.95
"""Level of every interval that is shown or published."""

# One measurement

WINDOW_MIN_S = 0.25
"""Shortest interior window; shorter ones are dominated by the scheduler's time slices."""
WINDOW_MIN_BATCHES = 4
"""Fewest batches of an interior window, so that one slow batch does not make a window."""
WINDOWS_MIN = 3
"""Fewest windows for an interval by the t distribution that means anything."""
PRECISION_SHARE = 0.03
"""Half width of the interval, as a share of the mean, at which a measurement stops: below the run-to-run
noise, so more precision within one process buys nothing."""
SEARCH_TIME_CAP_S = 2.0
"""Longest time in windows in the search: many short runs beat few long ones."""
CONFIRM_TIME_CAP_S = 3.0
"""Longest time in windows where runs decide."""
UNSTEADY_SHARE = 0.05
"""Difference of first and second half from which a run is extended once, then marked unsteady."""
FUTILITY_WINDOWS = 2
"""Windows after which a run may be given up."""
FUTILITY_SHARE = 0.6
"""A run is given up when even its optimistic bound is under this share of the incumbent."""
CONTENTION_SHARE = 0.15
"""CPU time of others, as a share of one core, from which a window is set aside and repeated."""
CONTENTION_REPEATS = 3
"""Windows that may be repeated for contention, lest a busy machine measures for ever."""
COLD_RESIDENT_SHARE = 0.01
"""Page cache counts as cold under this share of resident pages."""
WARM_RESIDENT_SHARE = 0.99
"""Page cache counts as warm from this share of resident pages on."""
DATA_WAIT_TARGET_SHARE = 0.05
"""Share of waiting for data under which faster loading buys nothing."""

# Memory

DEVICE_HEADROOM_SHARE = 0.95
"""Part of the limit that may be used: fragmentation differs from run to run."""
HOST_HEADROOM_SHARE = 0.95
"""The same for host memory, whose breach kills instead of raising."""
HOST_SAMPLE_EVERY_S = 1.0
"""Reading `smaps_rollup` of a process tree takes milliseconds, so not more often."""

# Deciding

SEARCH_SHARE = 0.6
"""Part of the time budget for the search; the rest confirms."""
CONFIRM_PAIRS_MIN = 3
"""Fewest pairs that a published ratio rests on."""
CONFIRM_PAIRS_MAX = 10
"""Pairs after which more hardly narrow the interval."""
PROMOTE_RATIO = 1.01
"""The lower end of the ratio's interval must lie above this before anything is promoted."""
WORTHWHILE_RATIO = 1.02
"""A gain smaller than this is not worth a change; an interval that reaches above it and down to 1 is undecided."""
RETRY_LIMIT = 1
"""Times that a retryable failure is run again."""
