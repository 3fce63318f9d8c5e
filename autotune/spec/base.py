"""The base of every value that is stored or sent: frozen, keyword-only, one JSON form."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from autotune.errors import SpecError

SCHEMA_VERSION = 1


class Value(BaseModel):
    """A frozen value with one JSON form.

    Rules are checked once, on construction; a broken rule raises pydantic's
    `ValidationError`, which `from_json` turns into `SpecError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")

    def replace(self, **changes: Any) -> Self:
        """Copy with some fields changed, all rules checked again."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def to_json(self) -> str:
        """Give the JSON text, `schema_version` included."""
        document = {"schema_version": SCHEMA_VERSION, **self.model_dump(mode="json")}
        return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read the JSON text that `to_json` wrote.

        Raises:
            SpecError: The text is no JSON, has another schema version, or breaks a rule.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{cls.__name__} must be a JSON document: {error}") from error
        if not isinstance(document, dict):
            raise SpecError(f"{cls.__name__} must be a JSON object, got {type(document).__name__}")
        version = document.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise SpecError(
                f"{cls.__name__} needs schema_version {SCHEMA_VERSION}, got {version!r}; "
                "it was written by another version of autotune"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise SpecError(f"{cls.__name__}: {first_message(error)}") from error

    def digest(self) -> str:
        """Give 16 hexadecimal digits that are equal exactly when the JSON forms are."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


def first_message(error: ValidationError) -> str:
    """Put pydantic's first complaint on one line: key, rule, value."""
    detail = error.errors()[0]
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    shown = "" if "got" in message else f", got {detail['input']!r}"
    return f"{key}: {message}{shown}" if key else f"{message}{shown}"
