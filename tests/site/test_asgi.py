"""What stands between the sockets and the threads: bodies arrive before a thread is taken."""

from __future__ import annotations

import asyncio
import json

from sentinel_site import asgi


class App:
    """An application that keeps what it was asked."""

    def __init__(self):
        self.asked = []

    async def __call__(self, scope, receive, send):
        message = await receive()
        self.asked.append((dict(scope["headers"]), message["body"]))


def ask(app, *messages, headers=()):
    """Send these messages of a body, then nothing more; what was answered."""
    waiting, answered = list(messages), []

    async def receive():
        return waiting.pop(0) if waiting else await asyncio.Event().wait()

    async def send(message):
        answered.append(message)

    scope = {"type": "http", "headers": list(headers)}
    asyncio.run(asgi.Gathered(app)(scope, receive, send))
    return answered


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_in_chunks_reaches_the_application_whole():
    app = App()
    ask(app, part(b"[1,"), part(b"2]", more=False), headers=[(b"transfer-encoding", b"chunked")])
    assert app.asked == [({b"content-length": b"5"}, b"[1,2]")]


def test_a_body_that_never_ends_takes_no_thread(monkeypatch):
    monkeypatch.setattr(asgi, "BODY_WITHIN", 0.01)
    app = App()
    answered = ask(app, part(b"{"), headers=[(b"content-length", b"1000")])
    assert app.asked == []
    assert (answered[0]["status"], json.loads(answered[1]["body"])["status"]) == (408, 408)


def test_a_body_beyond_the_limit_is_refused_before_it_is_all_here(monkeypatch):
    monkeypatch.setattr(asgi, "MAX_BODY", 10)
    app = App()
    assert ask(app, part(b"x" * 11))[0]["status"] == 413
    assert app.asked == []


def test_who_went_away_is_answered_nothing():
    app = App()
    assert ask(app, {"type": "http.disconnect"}) == []
    assert app.asked == []
