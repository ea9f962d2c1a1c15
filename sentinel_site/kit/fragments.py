"""One piece of HTML per thing: a page includes it, `?fragment=name` returns it alone."""

from __future__ import annotations

from django.http import HttpRequest

from sentinel_site.kit.problems import NotFound


def fragment(request: HttpRequest, page: str, **fragments: str) -> str:
    """The template to render: the page, or the fragment that was asked for by name.

    Raises NotFound for a name that the page does not have.
    """
    asked = request.GET.get("fragment")
    if not asked:
        return page
    if asked not in fragments:
        raise NotFound
    return fragments[asked]
