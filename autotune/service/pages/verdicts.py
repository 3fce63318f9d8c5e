"""What the forms of a decision's page do: approve, reject, pin, unpin, roll back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from autotune.errors import ConflictError, SpecError
from autotune.registry import Registry
from autotune.service.documents import ReasonedReview, Review, Rollback
from autotune.service.pages.addresses import named
from autotune.service.pages.answering import Page, problem, sentence
from autotune.service.problems import not_found
from autotune.service.state import service_of
from autotune.spec import AccessToken, DecisionEvent
from autotune.spec.base import first_message

_FIELDS_MAX = 4
_REASON_NEEDED = "Say why, in a few words: others will ask later. Nothing was changed."


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A form, and what it does.

    Attributes:
        form: What has to be in it.
        work: Does it; takes the registry, the decision's key, and who, why and what was seen by name.
    """

    form: type[Review]
    work: Callable[..., DecisionEvent]


VERDICTS: Mapping[str, Verdict] = {
    "approve": Verdict(form=Review, work=Registry.approve),
    "reject": Verdict(form=ReasonedReview, work=Registry.reject),
    "pin": Verdict(form=ReasonedReview, work=Registry.pin),
    "unpin": Verdict(form=Review, work=Registry.unpin),
    "rollback": Verdict(form=Rollback, work=Registry.roll_back),
}
"""What can be decided, by the last part of the address."""


def deciding(name: str) -> Page:
    """Give what answers the form of a verdict."""
    verdict = VERDICTS[name]

    async def decided(request: Request, visitor: AccessToken) -> Response:
        return await _decide(request, visitor, verdict)

    return decided


async def _decide(request: Request, visitor: AccessToken, verdict: Verdict) -> Response:
    """Do what a form asks for, unless what it was based on has changed meanwhile."""
    service, key = service_of(request), named(request, "key")
    form = await request.form(max_files=0, max_fields=_FIELDS_MAX)
    typed = {name: value for name, value in form.items() if isinstance(value, str) and (value or name != "to")}
    kept, back = typed.get("reason", ""), f"/decisions/{key}"
    given = _read(verdict.form, typed)
    if given is None:
        return problem(request, visitor, status=422, told=_REASON_NEEDED, kept=kept, back=back)

    def work() -> None:
        if service.registry.decision(key) is None:
            raise not_found(f"There is no decision {key!r}.")
        verdict.work(service.registry, key, actor=visitor.name, **given)

    try:
        await service.read(work)
    except ConflictError as error:
        return problem(request, visitor, status=409, told=sentence(str(error)), kept=kept, back=back)
    return RedirectResponse(back, 303)


def _read(form: type[Review], typed: Mapping[str, str]) -> dict[str, Any] | None:
    """Check a form; give None where nothing but its reason is missing.

    Raises:
        SpecError: It is none of our forms.
    """
    try:
        return form.model_validate(dict(typed)).model_dump()
    except ValidationError as error:
        if all(found["loc"] == ("reason",) for found in error.errors()) and not typed.get("reason", "").strip():
            return None
        raise SpecError(f"the form is not as our pages send it: {first_message(error)}") from error
