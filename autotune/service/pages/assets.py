"""Style and scripts of the pages: all of it comes from installed packages, none from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from autotune.service.state import service_of
from autotune.tracking.report.assets import asset, drawing_library

_STYLE, _SCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"


def _style() -> str:
    own = (files("autotune.service.pages") / "templates" / "pages.css").read_text(encoding="utf-8")
    return f"{asset('report.css')}\n{own}"  # one design for reports and pages


_ASSETS: Mapping[str, tuple[str, Callable[[], str]]] = {
    "pages.css": (_STYLE, _style),
    "figures.js": (_SCRIPT, lambda: asset("figures.js")),
    "plotly.js": (_SCRIPT, drawing_library),
}


@cache
def _body(name: str) -> tuple[bytes, bytes]:
    """Give an asset plain and compressed: plotly's script has several MB, and phones fetch it too."""
    plain = _ASSETS[name][1]().encode()
    return plain, gzip.compress(plain, 6, mtime=0)


@cache
def address_of(name: str) -> str:
    """Give the address of an asset, which changes with it: browsers keep it for ever."""
    return f"/static/{name}?v={hashlib.sha256(_body(name)[0]).hexdigest()[:16]}"


async def serve_asset(request: Request) -> Response:
    """Give an asset; nobody needs to log in for what every installation has."""
    name = request.path_params["name"]
    if name not in _ASSETS:
        raise HTTPException(404, "There is no such file.")
    plain, packed = await service_of(request).show(lambda: _body(name))
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, media_type=_ASSETS[name][0], headers={**headers, "Content-Encoding": "gzip"})
    return Response(plain, media_type=_ASSETS[name][0], headers=headers)
