"""From parts to one HTML page that needs no network: templates, style, drawing code and figures are all in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import cache

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autotune.tracking.report.assets import asset, drawing_library
from autotune.tracking.report.evidence import StudyEvidence
from autotune.tracking.report.parts import Drawing, StudyPart, anchor_of, study_part
from autotune.tracking.report.preface import Preface
from autotune.units import format_seconds


def render_report(
    studies: Sequence[StudyEvidence],
    *,
    made_at: datetime,
    preface: Preface | None = None,
    address: str | None = None,
) -> str:
    """Give the page about some studies.

    Args:
        studies: What is known of each.
        made_at: Time that the page bears.
        preface: What stands before the studies, as after a night; None where they speak for themselves.
        address: Address of the service whose pages decisions link to; None links to nothing.
    """
    parts = [study_part(evidence, address=address) for evidence in studies]
    drawn = any(finding.drawings for part in parts for finding in part.findings)
    scripts = (drawing_library(), asset("figures.js")) if drawn else ()
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            title=preface.title if preface else f"autotune: {', '.join(part.study for part in parts)}",
            preface=preface,
            studies=parts,
            anchors=_anchors(parts),
            made_at=made_at,
            style=Markup(asset("report.css")),  # noqa: S704 - a file of this package
            scripts=[Markup(script) for script in scripts],  # noqa: S704 - files of this package and of plotly
            script_hashes=[_hash(script) for script in scripts],
        )
    )


def page_environment(*further: BaseLoader) -> Environment:
    """Give what templates are rendered with: those of the report, and others that show its parts.

    Args:
        further: Where other templates are; of equal names theirs are taken.
    """
    environment = Environment(
        loader=ChoiceLoader([*further, PackageLoader("autotune.tracking.report", "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = format_seconds
    environment.filters["figure_json"] = _figure_json
    return environment


_environment = cache(page_environment)


def _anchors(parts: Sequence[StudyPart]) -> dict[str, str]:
    return {part.study: anchor_of(part.study) for part in parts}


def _figure_json(drawing: Drawing) -> Markup:
    """Write a figure for a script element, which a less-than sign could end."""
    text = drawing.figure.to_json()
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 - JSON without any markup left


@cache
def _hash(script: str) -> str:
    """Name a script for the page's policy, under which no other one runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
