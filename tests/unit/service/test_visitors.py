"""Where a form came from, as far as browsers, and what only looks like one, say so."""

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from autotune.service.pages.visitors import check_origin


def sent(origin, host="tuner:8642"):
    headers = [(b"host", host.encode("latin-1")), (b"origin", origin.encode("latin-1"))]
    return Request({"type": "http", "method": "POST", "path": "/login", "headers": headers})


@pytest.mark.parametrize(("origin", "host"), [("http://tuner:8642", "tuner:8642"), ("https://tuner", "tuner:443")])
def test_form_of_our_own_page_is_taken(origin, host):
    check_origin(sent(origin, host))


@pytest.mark.parametrize(
    "origin",
    ["", "null", "http://", "http:// a:80", "http://\xa0tuner:8642", "http://tuner:\xb2", "http://[::1", "ftp://tuner:8642",
     "http://tuner:8642/x", "http://tuner:8643"],
)  # fmt: skip
def test_whatever_else_an_origin_says_is_refused(origin):
    with pytest.raises(HTTPException, match="another site"):
        check_origin(sent(origin))
