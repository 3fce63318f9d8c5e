"""What a page holds, as its parser sees it."""

import json
from html.parser import HTMLParser

VOID = {"meta", "br", "line", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes, texts and scripts of a page; raises where elements do not close as they opened."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.texts = []
        self.scripts = []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), []))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1][1].append(data)
        elif self._open and self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def figures(self):
        """Figures by their place on the page."""
        return {
            attrs["id"].removesuffix("-data"): json.loads("".join(parts))
            for attrs, parts in self.scripts
            if attrs.get("type") == "application/json"
        }

    def programs(self):
        """Scripts that a browser runs."""
        return ["".join(parts) for attrs, parts in self.scripts if attrs.get("type") != "application/json"]

    def attribute(self, name):
        """All values of an attribute."""
        return [attrs[name] for _, attrs in self.elements if name in attrs]
