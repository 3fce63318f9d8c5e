"""`autotune report`: one page about studies, to be kept, sent and printed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.output import error_console, print_json
from autotune.compose import places
from autotune.errors import SpecError
from autotune.registry import open_existing
from autotune.tracking.report import gather, render_report
from autotune.tracking.report.page_file import write_page

NEEDS_ARGUMENTS = True
EXAMPLES = "Example: autotune report forest_gaps -o report.html"


def command(
    names: Annotated[list[str], typer.Argument(help="Names of studies.", metavar="NAME...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    home: Annotated[Path | None, typer.Option(help="Folder of results.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Write what studies came to, on what evidence, with all figures, into one HTML file that works offline."""
    at = places(home)
    with open_existing(at.home, at.registry_url) as registry:
        known = registry.studies()
        for name in names:
            if name not in known:
                told = ", ".join(known) or "none yet"
                raise SpecError(f"a report is about a study of the registry, got {name!r}; it has these: {told}")
        studies = [gather(registry, name) for name in dict.fromkeys(names)]
    page = render_report(studies, made_at=datetime.now(UTC), address=at.service_url)
    size = write_page(page, output)
    if as_json:
        print_json({"report": str(output), "studies": [study.study for study in studies], "size_bytes": size})
        return
    told = f"{output}: {', '.join(study.study for study in studies)}"
    error_console().print(told, markup=False, highlight=False, soft_wrap=True)
