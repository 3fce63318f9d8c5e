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

# The probe

PROBE_SAMPLES_S = 0.6
"""Longest time for reading single samples: enough for 100 of 6 ms."""
PROBE_PIECE_S = 0.15
"""Time for each rate that a probe takes, at each batch size: an estimate orders first guesses, no more."""
PROBE_BATCH_SIZES = 4
"""Batch sizes that a probe looks at, spread over those of the space."""

# Memory

DEVICE_HEADROOM_SHARE = 0.95
"""Part of the limit that may be used: fragmentation differs from run to run."""
HOST_HEADROOM_SHARE = 0.95
"""The same for host memory, whose breach kills instead of raising."""
HOST_SAMPLE_EVERY_S = 1.0
"""Reading `smaps_rollup` of a process tree takes milliseconds, so not more often."""

# Budget

SEARCH_SHARE = 0.5
"""Part of the time budget for probe and search."""
RACE_SHARE = 0.25
"""Part of the time budget for the race; the rest confirms."""
TIME_CAP_SHARE = 1 / 60
"""Longest time in windows of one run as a share of the budget: a short budget buys more runs with shorter ones,
as runs differ by more than windows do."""
TIME_CAP_MIN_S = 0.5
"""Windows are not cut below this for any budget."""
PROCESS_S = 0.7
"""What a run costs beside its windows, in seconds, for the first guess of how much time later phases need."""
PREPARATION_SHARE = 0.5
"""Part of the time budget that building and filling may take for one configuration, over all the runs that it needs to
be handed out: more leaves too little for what it is compared with."""
SEARCH_TRIALS_MIN = 3
"""Trials that even the shortest budget pays for: the default and the two best guesses."""
SEARCH_RUNS_MIN = 14
"""Processes of the shortest study: three trials, two verifications, three blocks of winner, default and deployed."""
PROCESS_RUNS_MAX = 130
"""Processes that one study may measure in, over all phases up to its decision."""
SEARCH_TRIALS_MAX = 43
"""Trials after which a search ends: with probe, a full race (8 x 8), two verifications and ten pairs that makes 130."""

# Searching

ESTIMATES_FIRST = 4
"""Configurations that the estimate puts first, each of another way to store samples."""
GUESS_SHARE = 1 / 3
"""Estimated rate, as a share of the highest, under which a configuration is no first guess: estimates are mostly within
30 %, and up to 75 % off."""
CLIMBED_FROM = 2
"""Places to read from beside whose best configuration the neighbouring batch sizes are tried."""
HEADROOM_REACHED_SHARE = 0.97
"""Share of the bound from which nothing is to gain: the rest is within what a decision can tell."""
HEADROOM_WORTH_SHOWING_SHARE = 0.93
"""Estimated share of the bound from which the runs are spent that show it; estimates err by a few percent."""
HEADROOM_PAIRS = 3
"""Pairs of probe and default that must show that the default reaches the bound, before the search is left out."""
EXPECTED_GAIN_SHARE = 0.02
"""Gain under which no further configuration is worth a run."""
EXPECTED_FROM_TRIALS = 6
"""Measured configurations from which a gain is expected at all: with fewer, the surrogate only repeats the estimate."""
RUN_TO_RUN_SHARE = 0.05
"""Standard deviation of a rate from run to run that the surrogate reckons with."""
REPEATS_BEFORE_GUESS = 2
"""Proposals in a row that were measured before, after which the most promising point is drawn instead: the sampler has
converged."""
REMEMBERED_CONFIGS = 3
"""Configurations that were fastest before something changed, which are measured first: one is often the best still."""
SIMILARITY_MIN = 0.5
"""Similarity of circumstances under which another study's configurations are no prior: over the recorded landscapes
studies of the same samples with half or twice the CPUs come to 0.76 and 0.84, those of other samples to 0.36."""
CARRIED_MAX = 4
"""Configurations of other studies that are measured first: what misleading ones cost at most."""
CARRIED_OF_A_STUDY = 3
"""Those of one study: its fastest are often the same way of loading at another batch size."""

# Memory boundary

PREDICTION_MARGIN = 1.1
"""What a prediction must pass the limit by before a configuration is not tried: allocators work in steps, so a line
through small batches is that rough. What is handed out has been measured, and is never a prediction."""

# Racing

RACE_ENTRANTS_MAX = 8
"""Configurations that may race."""
RACE_MARGIN_SHARE = 0.10
"""How far behind the best of the search a configuration may be and still race: runs differ by 5 to 8 %."""
RACE_BLOCKS_MIN = 3
"""Blocks before any is dropped."""
RACE_BLOCKS_MAX = 8
"""Blocks after which the leader is taken."""
RACE_DROP_LEVEL = 0.01
"""One-sided level at which a configuration is dropped: it is tested after every block, so the level is strict."""
EQUIVALENCE_SHARE = 0.02
"""Loss against the leader that nobody notices: what is shown to lose less may be chosen for being cheaper."""
EQUIVALENCE_CONFIDENCE = 0.95
"""One-sided confidence of that bound."""

# Deciding

CHALLENGERS_MAX = 3
"""Configurations that may fail in the confirm phase before it is given up."""
CONFIRM_PAIRS_MIN = 3
"""Fewest pairs that a published ratio rests on."""
CONFIRM_PAIRS_WANTED = 5
"""Pairs that the budget keeps time for: with three, the t distribution makes the interval twice as wide as with five,
and a step that differs by 12 % from run to run hid a gain of 40 % in it."""
PLAIN_GAIN_RATIO = 2.0
"""Gain seen in the search from which the time for the fewest pairs is enough: their interval reaches down to about two
thirds of the ratio where runs differ by 12 %. The time that this saves tells the best apart from each other."""
CONFIRM_PAIRS_MAX = 10
"""Pairs after which more hardly narrow the interval; several machines measure as many as fill their last round."""
PROMOTE_RATIO = 1.01
"""The lower end of the ratio's interval must lie above this before anything is promoted."""
WORTHWHILE_RATIO = 1.02
"""A gain smaller than this is not worth a change; an interval that reaches above it and down to 1 is undecided."""
SMALLER_BUSY_SHARE = 0.9
"""Share of fewer CPUs that may be busy for a prediction that they do: loading comes in bursts, and a queue that never
fills up empties."""
SMALLER_LOSS_SHARE = 0.1
"""Loss of rate from which fewer CPUs slow the consumer itself down: runs of one configuration differ by 5 to 8 %."""
SMALLER_RUNS_KEPT = 2
"""Runs with fewer CPUs that a study with a consumer keeps time for."""
SMALLER_RUNS_MAX = 4
"""Runs with fewer CPUs, where the budget allows as many; beyond those that searching and deciding may take."""
RETRY_LIMIT = 1
"""Times that a retryable failure is run again."""

# Tuning while training

ONLINE_WINDOW_S = 0.5
"""Window that the resolved setting is looked at for, which fixes the batches of all windows: where another is twice as
fast, its window is still the shortest that means anything."""
ONLINE_WINDOWS_LONGER = (4, 2)
"""How much longer windows may be where half of the batches pay for it: starting workers then weighs less."""
ONLINE_SETTINGS_MAX = 5
"""Settings that are proposed beside the resolved one: each costs a start of workers, and a segment of an epoch."""
ONLINE_BLOCKS_WANTED = 5
"""Blocks of segments that windows are not made longer at the cost of."""
ONLINE_WORKERS_MAX = 16
"""Workers that are proposed on machines with more CPUs: each takes memory and a start in every segment, and a step that
more of them would feed is rare. Who has one names the settings."""
ONLINE_WORKER_BYTES = 128 * 1024**2
"""Host memory that a worker is reckoned to take beside its batches: its interpreter's own pages, once it has worked."""
ONLINE_GLANCES_MAX = 2
"""Passes left before a first segment has ended that do not count as epochs: somebody looks at a batch."""

# Nights

CHECK_PAIRS = 5
"""Blocks in which what is deployed is measured again: as many as the confirm phase keeps time for."""
NIGHTS_LOOKED_AT = 60
"""Nights back in which a measurement of what is deployed is looked for, which drift is told from."""
DRIFT_SHARE = 0.05
"""Change of a rate from its record that is worth a new search, beyond noise: machines are not as fast on all days."""
NIGHT_SHARE_MIN = 0.5
"""Part of its own budget that a study searches with at least: with less its decision would be left to noise, so
another night does it."""
NIGHT_OVERHEAD_S = 15.0
"""What a search takes beside its budget, in seconds: a look at the dataset, figures, notes and MLflow's start."""
NIGHT_RESUMED_WITHIN_S = 12 * 3600.0
"""Age up to which a night that was killed goes on; an older one is another night."""
LEASE_RENEWED_EVERY_S = 60.0
"""Time between renewals of a lease: four may fail in a row before it expires."""
KEEP_DAYS = 90
"""Days that trial records stay, and archives that nothing deploys, unless a night is told otherwise."""

# Many machines

CLAIM_S = 60.0
"""Life of a worker's claim on a trial that is not renewed: a machine that was lost holds a study up for no longer, and
a network that is gone for a moment costs nothing."""
CLAIM_RENEWED_SHARE = 0.25
"""Share of a claim's life after which it is renewed: three renewals may fail in a row."""
ORDER_POLL_S = 0.25
"""Time between two looks at the registry: idle machines lose that at most, and each look takes a millisecond."""
STUDY_LOOKED_AT_EVERY_S = 1.0
"""Time between two looks of an idle machine at the study itself, which change less than what is ordered."""
MACHINES_AWAITED_S = 600.0
"""How long a study waits for a machine that can measure: jobs of a cluster do not start at once."""
