"""Pages as a browser asks for them, without one: a cookie, forms, and where the browser says that it was."""

import contextlib
import http.client
from http.cookies import SimpleCookie
from urllib.parse import urlencode


class Visit:
    """Somebody who looks at the pages of a service.

    Attributes:
        cookies: What the service had this browser keep.
    """

    def __init__(self, service):
        self.service = service
        self.cookies = {}

    def get(self, path, *, port=None, headers=None):
        """Open a page; give status, headers and text."""
        return self._send("GET", path, port=port, headers=headers)

    def post(self, path, *, origin="own", port=None, **fields):
        """Send a form, from one of our pages unless said otherwise; None says nothing of where from."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        own = f"http://127.0.0.1:{port or self.service.port}"
        if origin is not None:
            headers["Origin"] = own if origin == "own" else origin
        return self._send("POST", path, body=urlencode(fields), port=port, headers=headers)

    def log_in(self, token):
        """Log in by the form; give the visit."""
        status, headers, text = self.post("/login", token=token)
        assert (status, headers["Location"]) == (303, "/"), text
        return self

    def ask(self, method, path, *, port=None):
        """Send a request without a body."""
        return self._send(method, path, port=port, headers={"Origin": f"http://127.0.0.1:{port}"})

    def _send(self, method, path, *, body=None, port=None, headers=None):
        sent = dict(headers or {})
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", port or self.service.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            text = response.read().decode()
        for morsel in SimpleCookie(response.headers.get("Set-Cookie", "")).values():
            self.cookies[morsel.key] = morsel.value
        return response.status, response.headers, text
