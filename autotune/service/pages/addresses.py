"""What the address of a page asks for: names and keys, and nothing else that could be written there."""

from __future__ import annotations

from starlette.requests import Request

from autotune.service.problems import not_found

_LENGTH_MAX = 200


def named(request: Request, name: str) -> str:
    """Give a part of the path, such as the key of a decision.

    Raises:
        HTTPException: It is nothing that a key or name could be: PostgreSQL keeps no NUL, for one.
    """
    return _checked(str(request.path_params[name]))


def asked(request: Request, name: str) -> str:
    """Give what stands behind the question mark under a name; empty where nothing does.

    Raises:
        HTTPException: It is nothing that a key or name could be.
    """
    return _checked(request.query_params.get(name, ""))


def _checked(text: str) -> str:
    if len(text) > _LENGTH_MAX or not text.isprintable():
        raise not_found("There is no such thing.")
    return text
