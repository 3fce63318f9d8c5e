"""Nights: every study of a folder is checked, searched anew where it has to be, and taken back where it is a loss."""

from autotune.service.nightly.order import NightOrder, study_files
from autotune.service.nightly.planning import Need, Plan
from autotune.service.nightly.preview import preview
from autotune.service.nightly.run import run_night
from autotune.service.nightly.summary import summary_line, written_report
from autotune.service.nightly.telling import NightListener

__all__ = [
    "Need",
    "NightListener",
    "NightOrder",
    "Plan",
    "preview",
    "run_night",
    "study_files",
    "summary_line",
    "written_report",
]
