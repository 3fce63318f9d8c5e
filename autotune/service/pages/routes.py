"""Which page answers which address."""

from __future__ import annotations

from starlette.routing import Route

from autotune.service.pages import comparison, decisions, history, login, studies, verdicts
from autotune.service.pages.answering import anybody, deciders, readers
from autotune.service.pages.assets import serve_asset


def page_routes() -> list[Route]:
    """Give the routes of all pages, apart from those of the API."""
    return [
        Route("/", readers(studies.show_studies), name="studies_page"),
        Route("/studies/{study}", readers(studies.show_study), name="study_page"),
        Route("/waiting", readers(decisions.show_waiting), name="waiting_page"),
        Route("/decisions/{key}", readers(decisions.show_decision), name="decision_page"),
        *(
            Route(
                f"/decisions/{{key}}/{name}", deciders(verdicts.deciding(name)), methods=["POST"], name=f"{name}_form"
            )
            for name in verdicts.VERDICTS
        ),
        Route("/history", readers(history.show_history), name="history_page"),
        Route("/compare", readers(comparison.show_comparison), name="comparison_page"),
        Route("/nights", readers(history.show_nights), name="nights_page"),
        Route("/nights/{key}", readers(history.show_night), name="night_page"),
        Route("/queue", readers(history.show_queue), name="queue_page"),
        Route("/queue", deciders(history.queue_study, "tune"), methods=["POST"], name="queue_form"),
        Route("/login", anybody(login.show_login), name="login_page"),
        Route("/login", anybody(login.log_in), methods=["POST"], name="login_form"),
        Route("/logout", anybody(login.log_out), methods=["POST"], name="logout_form"),
        Route("/static/{name}", anybody(serve_asset), name="static"),
    ]
