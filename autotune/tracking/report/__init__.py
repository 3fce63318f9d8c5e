"""The report: one page for people, of one study or of a whole night, that needs nothing but a browser."""

from autotune.tracking.report.evidence import EvidenceStore, Finding, StudyEvidence, finding, findings, gather
from autotune.tracking.report.night import night_preface
from autotune.tracking.report.preface import Preface, PrefaceRow
from autotune.tracking.report.rendering import render_report

__all__ = [
    "EvidenceStore",
    "Finding",
    "Preface",
    "PrefaceRow",
    "StudyEvidence",
    "finding",
    "findings",
    "gather",
    "night_preface",
    "render_report",
]
