"""Secrets are masked, and nothing else is: request ids, UUIDs and sentences stay."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_client.config import Config, Masking, OpenStack
from agent_client.masking import MASK, Masker, guard, mask_own_by, masker_of

mask = Masker()
UUID = "896b884d-533d-4875-bfcc-d8d9a4d57a33"
FERNET = "gAAAAABj1234567890abcdefABCDEF_-xyzXYZ1234567890abcdefghijklmnopqrstuvwxyz=="
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"

SECRET = "Tr0ub4dor"


@pytest.mark.parametrize(
    "text",
    [
        f"password={SECRET}",
        f"password = {SECRET} user = nova",
        f"admin_password: {SECRET}",
        f"'password': u'{SECRET}'",
        f'{{"auth": {{"passwordCredentials": {{"username": "n", "password": "{SECRET}"}}}}}}',
        f'{{\\"password\\": \\"{SECRET}\\"}}',
        f"{{'adminPass': '{SECRET}', 'name': 'vm-1'}}",
        f"<adminPass>{SECRET}</adminPass>",
        f"metadata_proxy_shared_secret={SECRET}",
        f"memcache_secret_key = {SECRET}",
        f"OS_PASSWORD={SECRET} openstack server list",
        f"Running cmd (subprocess): mysqldump --password={SECRET} nova",
        f"openstack --os-password {SECRET} server list",
        f"curl --os-token {SECRET} http://x/",
        f"api_key={SECRET}&page=2",
        f"GET /v1/x?token={SECRET}&a=b HTTP/1.1",
        f'-H "X-Auth-Token: {SECRET}" -H "Accept: */*"',
        f"{{'X-Subject-Token': '{SECRET}', 'Vary': 'X'}}",
        f"X-Service-Token: {SECRET}",
        f"Authorization: Basic {SECRET}==",
        f"'Authorization': 'Bearer {SECRET}'",
        f"Cookie: sessionid={SECRET}; csrftoken={SECRET}",
        f"Bearer {SECRET}",
        f"rabbit://openstack:{SECRET}@10.0.0.5:5672/",
        f"rabbit://openstack:{SECRET}@ctl1:5672,openstack:{SECRET}@ctl2:5672//",
        f"mysql+pymysql://nova:{SECRET}@10.0.0.5/nova?charset=utf8",
        f"redis://:{SECRET}@10.0.0.5:6379/0",
        f"http://proxyuser:{SECRET}@proxy:3128",
        f"wrong password: {SECRET}",
        f"pwd={SECRET}",
        f"credential: {SECRET}{SECRET}",
    ],
)
def test_a_secret_is_masked_and_its_surroundings_are_not(text: str) -> None:
    masked = mask(text)
    assert SECRET not in masked
    assert MASK in masked
    kept = re.split(re.escape(SECRET) + "=*", text)
    assert masked.startswith(kept[0].rpartition("Basic")[0].rpartition("Bearer")[0])


@pytest.mark.parametrize(
    "token", [FERNET, JWT, "snt_ab12_secretpart", "AbC/gAAAAABj12345678901234"]
)
def test_a_token_is_known_by_its_form(token: str) -> None:
    masked = mask(f"Could not recognize {token} here")
    assert token not in masked
    assert masked.startswith("Could not recognize ")
    assert masked.endswith(" here")


def test_a_private_key_is_masked_as_a_whole() -> None:
    pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----"
    masked = mask(f"loaded {pem} done")
    assert "MIIE" not in masked
    assert masked.endswith("done")
    assert "MIIE" not in mask("loaded -----BEGIN PRIVATE KEY-----\nMIIE and no end")


@pytest.mark.parametrize(
    "text",
    [
        f"[req-{UUID} req-{UUID} 3e33039b0c6f483d9db237144d6f61c9] [instance: {UUID}] done",
        "Unable to validate token: Unable to establish connection to http://127.0.0.1:5000/v3",
        "Unable to validate token: Failed to fetch token data from identity server",
        "Truncating password to algorithm specific maximum length 72 characters.: "
        "keystone.exception.UserNotFound: Could not find user: admin.",
        "Invalid user / password: keystone.exception.Unauthorized: try again",
        "Authorization failed. The request you have made requires authentication. from 10.0.0.1",
        "Authorization failed for token: InvalidToken",
        "The password for user nova has expired: reset it",
        "Token expired, key not found, secret unknown",
        f"secret_id={UUID} was stored by barbican",
        "password=None token=null secret={}",
        "X-Auth-Token: {SHA256}9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "http://10.0.0.5:8774/v2.1/servers/detail?host=a@b",
        "AMQP server on 127.0.0.1:5672 is unreachable: [Errno 111] ECONNREFUSED",
        "passed: 12, failed: 0, bypass: yes",
        "primary key: id, foreign key: instance_uuid",
        "PUT /v2/images/x/file 204 keystone_authtoken.memcached_servers: 10.0.0.1:11211",
        "user@example.org logged in",
    ],
)
def test_what_is_no_secret_stays_as_it_is(text: str) -> None:
    assert mask(text) == text


def test_emails_are_masked_on_request_alone() -> None:
    text = "mail from jane.doe+x@mail.example.org to <bob@example.com>, host a@b"
    assert mask(text) == text
    assert Masker(Masking(emails=True))(text) == f"mail from {MASK} to <{MASK}>, host a@b"


def test_patterns_of_ones_own_are_masked() -> None:
    own = Masker(Masking(patterns=(re.compile(r"customer-\d+"),)))
    assert own("order of customer-4711 failed") == f"order of {MASK} failed"


def test_the_agents_own_secrets_are_masked_wherever_they_stand() -> None:
    config = Config(
        key="snt_abc_canarykey",
        proxy="http://me:pr%40xysecret@proxy:3128",
        openstack=OpenStack(password="canarypassword", application_credential_secret="canaryapp"),
    )
    own = masker_of(config)
    for secret in (
        "snt_abc_canarykey",
        "canarypassword",
        "canaryapp",
        "pr%40xysecret",
        "pr@xysecret",
    ):
        assert secret not in own(f"in the middle of {secret}, a sentence")


@given(st.text(max_size=300))
def test_masking_never_fails_and_leaves_plain_text_alone(text: str) -> None:
    masked = Masker(Masking(emails=True))(text)
    if not re.search(r"[=:@>]|gaaaa|eyj|bearer|snt_|-----|--", text.lower()):
        assert masked == text


@pytest.mark.parametrize(
    "piece",
    ["password", "password=", "token: ", "x-auth-", "x-auth-token:", "://", "://a:", "a@", "@a.",
     "gAAAA", "eyJ", "eyJaaaaaaaaa.", "bearer ", "-----BEGIN PRIVATE KEY-----", "--pass", "secret'",
     "cookie: ", "a.b-", "'", "\\'", "<pass>", ",a:b", "snt_a", "1a", "{", "key-"],
)  # fmt: skip
def test_no_text_makes_masking_slow(piece: str) -> None:
    own = Masker(Masking(emails=True))

    def seconds(length: int) -> float:
        text = (piece * length)[: len(piece) * length]
        best = 1e9
        for _ in range(3):
            began = time.thread_time()
            own(text)
            best = min(best, time.thread_time() - began)
        return best

    short, long = seconds(1000), seconds(16_000)
    assert long < max(0.05, 16 * 6 * short), "it grows faster than the text"


def test_the_agents_own_log_and_crashes_show_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("test.masking")
    logger.addHandler(handler)
    logger.propagate = False
    before = sys.excepthook, threading.excepthook
    try:
        guard(Masker(secrets=["canary-secret"]), [handler])
        logger.warning("connecting with %s", "canary-secret")
        try:
            raise ValueError("canary-secret")
        except ValueError:
            logger.exception("it failed")

        def crash() -> None:
            raise RuntimeError("canary-secret")

        thread = threading.Thread(target=crash)
        thread.start()
        thread.join()
    finally:
        sys.excepthook, threading.excepthook = before
        logger.removeHandler(handler)
    said = stream.getvalue()
    assert "canary" not in said
    assert "ValueError: ***" in said
    crashed = capsys.readouterr().err
    assert "canary" not in crashed
    assert "RuntimeError: ***" in crashed


def test_an_uncaught_error_shows_no_secret() -> None:
    code = (
        "from agent_client.masking import Masker, guard\n"
        "guard(Masker(secrets=['canary' + '-secret']), [])\n"
        "raise RuntimeError('canary' + '-secret')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert "RuntimeError: ***" in done.stderr
    assert "canary-secret" not in done.stderr


def test_after_a_change_of_secrets_the_agents_own_log_hides_the_new_ones() -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logger = logging.getLogger("tests.own")
    logger.addHandler(handler)
    hooks = sys.excepthook, threading.excepthook
    try:
        guard(Masker(secrets=["first-secret"]), [handler])
        logger.warning("first-secret")
        mask_own_by(Masker(secrets=["second-secret"]))
        logger.warning("it is %s", "second-secret")
    finally:
        sys.excepthook, threading.excepthook = hooks
        mask_own_by(Masker())
        logger.removeHandler(handler)
    assert written.getvalue() == "***\nit is ***\n"
