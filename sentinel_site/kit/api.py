"""What every API view shares: errors as problem documents, and keyset pages."""

from __future__ import annotations

import re
from typing import Any

from rest_framework import exceptions, parsers
from rest_framework.pagination import CursorPagination
from rest_framework.response import Response
from rest_framework.utils import json
from rest_framework.views import set_rollback

from sentinel_site.kit.problems import (
    CONTENT_TYPE,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    Problem,
    TooLarge,
    as_problem,
)

#: Of a request that people and scripts make; reports have a door and a limit of their own.
MAX_BODY = 1024 * 1024
MOST_DIGITS = 300


class JSONParser(parsers.JSONParser):
    """DRF's, with bounds of size, depth and digits: what passes one is the sender's mistake."""

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        length = (parser_context or {})["request"].META.get("CONTENT_LENGTH") or 0
        if int(length) > MAX_BODY:
            raise TooLarge(f"At most {MAX_BODY // 1024} KiB are taken here.")
        try:
            return json.loads(stream.read(), parse_int=_whole)
        except RecursionError as error:
            raise exceptions.ParseError("The JSON is nested too deeply.") from error
        except ValueError as error:
            raise exceptions.ParseError(f"The body is not JSON: {error}.") from error


def _whole(digits: str) -> int:
    """A number that a float can hold as well."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a whole number has more than {MOST_DIGITS} digits")
    return int(digits)


class NewestFirst(CursorPagination):
    """By id, newest first; `?size=` up to 500. Stable while rows arrive."""

    ordering = "-pk"
    page_size = 100
    page_size_query_param = "size"
    max_page_size = 500

    def decode_cursor(self, request: Any) -> Any:
        """DRF's, which takes any text for a position, and then asks the database for it."""
        cursor = super().decode_cursor(request)
        position = cursor.position if cursor else None
        if position and not re.fullmatch(r"[0-9]{1,18}", str(position)):
            raise exceptions.NotFound
        return cursor


def exception_handler(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's errors and ours as problem documents; field errors under `errors`."""
    problem = as_problem(error)
    if problem is None and isinstance(error, exceptions.APIException):
        problem = _from_drf(error)
    if problem is None:
        return None
    set_rollback()
    return Response(
        problem.document(),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


#: Where DRF's own words are a template that only the detail fills in.
_TITLES = {
    "unsupported-media-type": "This kind of content is not understood here",
    "method-not-allowed": "This method is not allowed here",
}


def _from_drf(error: exceptions.APIException) -> Problem:
    headers = {}
    if isinstance(error, exceptions.NotAuthenticated | exceptions.AuthenticationFailed):
        return NotAuthenticated()
    if isinstance(error, exceptions.PermissionDenied):
        return NotPermitted(str(error.detail))
    if isinstance(error, exceptions.NotFound):
        return NotFound()
    if isinstance(error, exceptions.Throttled):
        headers["Retry-After"] = str(int(getattr(error, "wait", None) or 0) + 1)
    if isinstance(error, exceptions.ValidationError):
        problem = Problem(
            "One or more fields are not valid; see errors.", errors=_plain(error.get_full_details())
        )
        problem.status, problem.code, problem.title = 422, "not-valid", "Some fields are not valid"
        return problem
    problem = Problem(str(error.detail), headers=headers)
    problem.status = error.status_code
    problem.code = str(getattr(error, "default_code", "error")).replace("_", "-")
    problem.title = _TITLES.get(problem.code, str(getattr(error, "default_detail", error.detail)))
    return problem


def _plain(details: Any) -> Any:
    if isinstance(details, dict) and set(details) == {"message", "code"}:
        return {"message": str(details["message"]), "code": str(details["code"])}
    if isinstance(details, dict):
        return {key: _plain(value) for key, value in details.items()}
    if isinstance(details, list):
        return [_plain(value) for value in details]
    return details
