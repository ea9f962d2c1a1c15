"""Errors that a caller can act on: RFC 9457 documents for programs, messages on a page."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils.http import url_has_allowed_host_and_scheme

CONTENT_TYPE = "application/problem+json"


class Problem(Exception):
    """An error with an HTTP status, a stable code and a title; members go into the document.

    Declared beside the verb that raises it::

        class AlreadyAcknowledged(Problem):
            status, code, title = 409, "already-acknowledged", "Incident is taken"
    """

    status = 400
    code = "bad-request"
    title = "The request could not be carried out"
    headers: dict[str, str] = {}

    def __init__(
        self, detail: str = "", *, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.members = members
        self.headers = headers or self.headers

    def document(self) -> dict[str, Any]:
        """The problem document, as RFC 9457 section 3 defines it."""
        return document(self.status, self.code, self.title, self.detail, **self.members)


class NotFound(Problem):
    """Also what another tenant's member sees, whether or not the thing exists."""

    status, code, title = 404, "not-found", "There is nothing here"


class NotPermitted(Problem):
    status, code, title = 403, "not-permitted", "Your role does not allow this"


class NotAuthenticated(Problem):
    status, code, title = 401, "not-authenticated", "A valid key or session is needed"
    headers = {"WWW-Authenticate": "Bearer"}


class TooLarge(Problem):
    status, code, title = 413, "too-large", "The request is too large"


class Failure(Problem):
    status, code, title = 500, "failure", "Something went wrong here; it is logged"


class DatabaseAway(Problem):
    status, code, title = 503, "unavailable", "The database does not answer"
    headers = {"Retry-After": "5"}


def document(
    status: int, code: str, title: str, detail: str = "", **members: Any
) -> dict[str, Any]:
    body = {"type": f"/problems/{code}", "title": title, "status": status}
    if detail:
        body["detail"] = detail
    return {**body, **members}


def response(problem: Problem) -> JsonResponse:
    return JsonResponse(
        problem.document(),
        status=problem.status,
        content_type=CONTENT_TYPE,
        headers=problem.headers,
    )


def wants_json(request: HttpRequest) -> bool:
    """An API path, an agent's door, or a caller that asks for JSON."""
    return (
        request.path_info.startswith("/api/")
        or request.path.strip("/") in ("metrics", "logs")
        or "application/json" in request.headers.get("Accept", "")
    )


def answer(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The problem as a document for programs, as a fragment or page for people."""
    if wants_json(request):
        return response(problem)
    if request.headers.get("HX-Request"):
        return render(request, "components/problem.html", {"problem": problem}, status=200)
    if problem.status in (404, 403, 503):
        page = render(request, f"{problem.status}.html", {"problem": problem})
        page.status_code = problem.status
        return page
    if request.method in ("GET", "HEAD"):  # going back would lead here again
        page = render(request, "400.html", {"problem": problem})
        page.status_code = problem.status
        return page
    messages.error(request, str(problem))
    back = request.headers.get("Referer", "")
    own = url_has_allowed_host_and_scheme(back, {request.get_host()}, request.is_secure())
    return redirect(back if own else request.path)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Both URL configurations' handler404: a path without a page is like a row that is not ours."""
    return answer(request, NotFound())


def failed(request: HttpRequest) -> HttpResponse:
    """Both URL configurations' handler500; a database that is away is a 503, to be tried again.

    Pages are rendered without the request: whoever asks for its user needs the database again.
    """
    problem: Problem = Failure()
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        problem = DatabaseAway("Try again in a moment.")
    if wants_json(request):
        return response(problem)
    page = render_to_string(f"{problem.status}.html", {"problem": problem})
    return HttpResponse(page, status=problem.status, headers=problem.headers)


class ProblemMiddleware:
    """Turn a Problem, a 404 or a refusal of any view into an answer; views hold no try/except."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        problem = as_problem(error)
        return answer(request, problem) if problem else None


def as_problem(error: Exception) -> Problem | None:
    if isinstance(error, Problem):
        return error
    if isinstance(error, Http404):
        return NotFound()
    if isinstance(error, PermissionDenied):
        return NotPermitted(str(error))
    return None
