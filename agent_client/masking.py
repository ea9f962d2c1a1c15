"""Makes secrets unreadable before anything of them leaves the host, or reaches the spool or a log.

What is masked: what the agent itself must keep secret, word for word; values that are called a
password, token, key or secret; Authorization, token and cookie headers; the password in a URL;
Fernet tokens, JSON web tokens, private keys in PEM form, keys of this product; e-mail addresses and
patterns of one's own on request. Request ids, UUIDs and the sentence around a secret stay.

Every expression is linear in the length of the text: what may repeat is bounded, or stands before
something that it cannot match itself.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, Iterable, Match, Sequence
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from agent_client.config import Config, Masking

MASK = "***"

#: Shorter secrets are not looked for word for word: they would mask half of every text.
_SHORTEST_SECRET = 5

#: Only a text that holds one of these, in lower case, is searched for values by name.
_NAMES = ("pass", "pwd", "pswd", "secret", "token", "_key", "-key", "apikey", "psk", "credential")
_NAMED = re.compile(
    r"(?P<name>passphrase|password|passwd|admin_?pass|user_?pass|new_?pass|(?<![a-z])pass(?![a-z])"
    r"|pswd|pwd|psk"
    r"|(?P<other>secret(?:_?(?:key|id|uuid))?|token(?:_?id)?|credentials?|apikey"
    r"|(?:api|access|private|auth|signing|encryption|shared|secret|account)[_-]key))"
    r"\d{0,3}"
    r"(?P<between>\\?['\"]?\s{0,4}(?P<sign>=>|=|:)\s{0,4}|>)"
    r"(?P<quote>[ubr]{0,2}\\?['\"])?"
)
_NAMED_OPTION = re.compile(
    r"(?P<name>--[a-z-]{0,40}(?:password|passwd|pass|secret|token|key)[ =])(?P<value>[^\s'\"]+)"
)
_TO_QUOTE = re.compile(r"[^'\"\\\n]*")
_TO_TAG = re.compile(r"[^<\s]*")
_BARE = re.compile(r"[^\s,;&'\"\])}><\\]*")
_KEPT_VALUES = frozenset(["", "none", "null", "true", "false", "****", "***", "<sanitized>"])
_HARMLESS = re.compile(r"(?:req-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
_BEFORE_A_NAME = re.compile(r"(?:^|[\n{,(\[&?;|])[\s'\"\\ub-]{0,20}[\w.-]{0,60}$")

_HEADERS = ("authorization", "cookie", "-token", "-key")
_HEADER = re.compile(
    r"(?P<name>(?:proxy-)?authorization|(?:set-)?cookie|x-[a-z]{1,20}(?:-[a-z]{1,20})?-(?:token|key))"
    r"(?P<between>\\?['\"]?\s{0,4}[:=]\s{0,4}[ubr]?\\?['\"]?)(?P<value>[^'\"\r\n\\]+)"
)
_URL = re.compile(r"(?P<user>(?:://|,)[^\s:@/,'\"]{0,64}):(?P<password>[^\s@/,'\"]{1,256})@")
_FERNET = re.compile(r"gAAAA[\w-]{16,}(?:=|%3[Dd]){0,2}")
_BEARER = re.compile(r"(?P<name>\b[Bb]earer\s{1,4})[\w.~+/-]{8,}=*")
_JSON_WEB_TOKEN = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
_OUR_KEY = re.compile(r"snt_[0-9A-Za-z]{1,40}_[\w-]+")
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----)(?:(?!-----).)*(-----END[A-Z -]{0,40}-----)?",
    re.DOTALL,
)
_EMAIL_BEFORE = re.compile(r"[\w.%+-]{1,64}$")
_EMAIL_AFTER = re.compile(r"[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")


class Masker:
    """Masks texts. Safe to use from several threads."""

    def __init__(self, masking: Masking | None = None, secrets: Iterable[str] = ()) -> None:
        long_enough = {secret for secret in secrets if len(secret) >= _SHORTEST_SECRET}
        # A secret that holds another one goes first.
        self._secrets: Sequence[str] = sorted(long_enough, key=len, reverse=True)
        self._emails = masking is not None and masking.emails
        self._patterns = masking.patterns if masking is not None else ()

    def __call__(self, text: str) -> str:
        """The text without what nobody else may read."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        lower = _lower(text)
        if "-----begin" in lower and "private key" in lower:
            text = _PRIVATE_KEY.sub(rf"\1{MASK}\2", text)
            lower = _lower(text)
        if any(name in lower for name in _HEADERS):
            text = _mask_headers(text, lower)
            lower = _lower(text)
        if any(name in lower for name in _NAMES):
            text = _mask_named(text, lower)
            lower = _lower(text)
        if "@" in text:
            if ":" in text:
                text = _URL.sub(rf"\g<user>:{MASK}@", text)
            if self._emails:
                text = _without_emails(text)
        if "gaaaa" in lower:
            text = _FERNET.sub(MASK, text)
        if "bearer" in lower:
            text = _BEARER.sub(rf"\g<name>{MASK}", text)
        if "eyj" in lower:
            text = _JSON_WEB_TOKEN.sub(MASK, text)
        if "snt_" in lower:
            text = _OUR_KEY.sub(f"snt_{MASK}", text)
        for pattern in self._patterns:
            text = pattern.sub(MASK, text)
        return text


def masker_of(config: Config) -> Masker:
    """What masks for an agent with this configuration: its own secrets, too."""
    openstack = config.openstack
    proxy = urlsplit(config.proxy).password if config.proxy else ""
    secrets = [
        config.key,
        openstack.password,
        openstack.application_credential_secret,
        config.packs.rabbitmq_password,
        proxy or "",
        unquote(proxy or ""),
    ]
    return Masker(config.masking, secrets)


def _lower(text: str) -> str:
    """In lower case, each character at its place."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(one if len(one) == 1 else " " for one in map(str.lower, text))


def _mask_headers(text: str, lower: str) -> str:
    parts, done = [], 0
    for found in _HEADER.finditer(lower):
        start, end = found.span("value")
        name = found["name"]
        if name.startswith("x-"):
            bare = _BARE.match(lower, start)
            end = bare.end() if bare is not None else end
            if lower.startswith("{sha", start):
                continue  # keystoneauth writes a digest instead of the token
        if start < done or text[start:end].strip() in ("", MASK):
            continue
        parts += [text[done:start], MASK]
        done = end
    return "".join([*parts, text[done:]]) if parts else text


def _mask_named(text: str, lower: str) -> str:
    parts: list[str] = []
    done = 0
    found = _NAMED.search(lower)
    while found is not None:
        end = _end_of_value(text, lower, found)
        if end is not None:
            parts += [text[done : found.end()], MASK]
            done = end
        found = _NAMED.search(lower, end or found.end())
    if parts:
        text = "".join([*parts, text[done:]])
        lower = _lower(text)
    if "--" in lower:
        parts, done = [], 0
        for found in _NAMED_OPTION.finditer(lower):
            start, end = found.span("value")
            if text[start:end] != MASK and not text.startswith("-", start):
                parts += [text[done:start], MASK]
                done = end
        text = "".join([*parts, text[done:]])
    return text


def _end_of_value(text: str, lower: str, found: Match[str]) -> int | None:
    """Where the value that a name announces ends; None where it is no secret."""
    start = found.end()
    if found["quote"]:
        form = _TO_QUOTE
    elif found["sign"]:
        form = _BARE
    else:
        form = _TO_TAG
        if "<" not in lower[max(0, found.start() - 60) : found.start()]:
            return None
    value = form.match(lower, start)
    end = value.end() if value is not None else start
    said = lower[start:end]
    if said in _KEPT_VALUES or lower[start : start + 1] in ("{", "[", "<"):
        return None
    if found["other"] and _HARMLESS.match(said):
        return None
    if found["quote"] or found["sign"] != ":" or _BEFORE_A_NAME.search(
        lower, max(0, found.start() - 90), found.start()
    ):  # fmt: skip
        return None if said.endswith(":") and not found["quote"] else end
    # "Invalid password: try again": a sentence goes on after a colon, unless it looks like none.
    digits = any(character.isdigit() for character in said)
    if found["other"]:
        return end if digits and len(said) >= 16 else None
    return end if digits and not said.endswith(":") else None


def _without_emails(text: str) -> str:
    parts, done = [], 0
    at = text.find("@")
    while at >= 0:
        before = _EMAIL_BEFORE.search(text, max(done, at - 64), at)
        after = _EMAIL_AFTER.match(text, at + 1)
        if before is not None and after is not None:
            parts += [text[done : before.start()], MASK]
            done = after.end()
        at = text.find("@", at + 1)
    return "".join([*parts, text[done:]]) if parts else text


class _MaskingFilter(logging.Filter):
    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self.masker = masker

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.masker(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = self.masker(record.exc_text)
        return True


#: Of the agent's own log and what it prints when it crashes.
_own = _MaskingFilter(Masker())


def mask_own_by(masker: Masker) -> None:
    """Let the agent's own log go on with other secrets, after its configuration has changed."""
    _own.masker = masker


def guard(masker: Masker, handlers: Iterable[logging.Handler]) -> None:
    """Keep secrets out of the agent's own log, and out of what it prints when it crashes."""
    mask_own_by(masker)
    for handler in handlers:
        handler.addFilter(_own)

    def crashed(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        said = "".join(traceback.format_exception(kind, error, trace))
        sys.stderr.write(_own.masker(said))

    def thread_crashed(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None:
            crashed(failure.exc_type, failure.exc_value, failure.exc_traceback)

    sys.excepthook = crashed
    threading.excepthook = thread_crashed
