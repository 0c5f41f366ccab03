# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import email
import json
import socket
import ssl
import time
from email import policy
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._report.delivery import Delivery, deliver, jobs
from ansible_collections.vmward.remediation.plugins.module_utils._report.message import Message, compose, news
from ansible_collections.vmward.remediation.plugins.module_utils._report.story import tell
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.cases import (
    HOSTILE,
    book,
    contained,
    leaking,
    uncuttable,
)
from ansible_collections.vmward.remediation.tests.unit.plugins.module_utils._report.servers import (
    Mail,
    Web,
    certificate,
    served,
)

ANCHOR = f"5:{'a' * 64}"
SECRET = "s3cret-token"


def message(vm: str = "desk1") -> Message:
    return compose(tell("2026-0142", book(*contained(vm)).entries), "machines were cut off", ANCHOR)


def smtp(port: int, **more: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "security": "none", "sender": "vmward@example.net", **more}


def send(
    contact: dict[str, Any], settings: dict[str, Any] | None = None, deadline: float = 5, vm: str = "desk1"
) -> Delivery:
    (delivery,) = deliver(jobs([{"role": "administrator", **contact}], settings), message(vm), deadline)
    return delivery


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_mail_arrives_with_state_and_anchor() -> None:
    with served(Mail) as server:
        delivery = send({"email": "ada@example.net"}, smtp(server.port))
    assert (delivery.state, delivery.to) == ("done", "ada@example.net")
    (letter,) = [email.message_from_string(text, policy=policy.default) for text in server.letters]
    assert letter["To"] == "ada@example.net"
    assert letter["Subject"] == "[vmward] case 2026-0142: machines were cut off: desk1"
    body = letter.get_content()
    assert ANCHOR in body
    assert "desk1 is cut off from every network since 12:00:01 UTC. That was measured from another host." in body


@pytest.mark.parametrize(
    ("entries", "alarm", "said"),
    [
        (leaking(), "LEAKING", "its cut leaks. Treat it as connected. Seen: witness app1 still reaches"),
        ([uncuttable()], "CUT FAILED", "the cut failed. Treat it as connected. desk1 is NOT wholly isolated"),
    ],
)
def test_a_cut_that_is_none_is_announced_as_none(entries: list[dict[str, Any]], alarm: str, said: str) -> None:
    story = tell("2026-0142", book(*entries, *contained("desk2")).entries)
    told = compose(story, "machines were cut off", ANCHOR)
    assert told.subject == "[vmward] case 2026-0142: NOT CUT OFF: desk1"
    assert f"- desk1 is NOT CUT OFF, {said}" in told.body
    assert "desk1 is cut off" not in told.body
    assert [vm["alarm"] for vm in told.payload["vms"]] == [alarm, ""]
    assert news(story)["desk1"].endswith(alarm)  # so that it is told again once it holds


def test_a_hostile_name_adds_no_header_and_no_line() -> None:
    with served(Mail) as server:
        delivery = send(
            {"email": "ada@example.net"}, smtp(server.port), vm=HOSTILE + "\r\nBcc: eve@example.net\r\n\r\n.\r\n"
        )
    assert delivery.state == "done"
    letter = email.message_from_string(server.letters[0], policy=policy.default)
    assert letter["Bcc"] is None
    assert "\x1b" not in server.letters[0]
    assert "\u202e" not in letter["Subject"] + letter.get_content()


@pytest.mark.parametrize("to", ["ada@example.net\nBcc: eve@example.net", "no address", ""])
def test_an_address_that_is_none_is_refused(to: str) -> None:
    with served(Mail) as server:
        found = deliver(jobs([{"role": "administrator", "email": to}], smtp(server.port)), message(), 5)
    assert [one.state for one in found] == (["failed"] if to else [])
    assert not server.letters


def test_starttls_is_used_and_its_certificate_checked(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with served(Mail, tls=context) as server:
        believed = send(
            {"email": "ada@example.net"}, smtp(server.port, security="starttls", ca_path=str(tmp_path / "crt"))
        )
        assert server.encrypted
        unknown = send({"email": "ada@example.net"}, smtp(server.port, security="starttls"))
    assert believed.state == "done"
    assert unknown.state == "failed"
    assert "certificate verify failed" in unknown.msg
    assert len(server.letters) == 1


def test_a_server_without_starttls_gets_nothing() -> None:
    with served(Mail) as server:
        delivery = send({"email": "ada@example.net"}, smtp(server.port, security="starttls"))
    assert delivery.state == "failed"
    assert not server.letters


@pytest.mark.parametrize(("fault", "said"), [("refuses login", "535"), ("refuses recipient", "550 5.1.1 no such user")])
def test_what_the_mail_server_refuses_is_told_without_the_password(fault: str, said: str) -> None:
    with served(Mail, fault) as server:
        delivery = send({"email": "ada@example.net"}, smtp(server.port, username="ir", password=SECRET))
    assert delivery.state == "failed"
    assert said in delivery.msg
    assert SECRET not in delivery.msg


@pytest.mark.parametrize("fault", ["hangs", "trickles"])
def test_a_mail_server_that_never_answers_costs_the_deadline(fault: str) -> None:
    with served(Mail, fault) as server:
        began = time.monotonic()
        delivery = send({"email": "ada@example.net"}, smtp(server.port), deadline=1)
        took = time.monotonic() - began
    assert delivery.state == "failed"
    assert took < 30, "the server would keep it for ever"


def test_a_letter_that_was_taken_stays_delivered_whatever_comes_after() -> None:
    with served(Mail, "refuses to end") as server:
        assert send({"email": "ada@example.net"}, smtp(server.port)).state == "done"
    assert len(server.letters) == 1


def test_a_dead_mail_server_and_a_missing_one_are_told() -> None:
    dead = send({"email": "ada@example.net"}, smtp(free_port()))
    missing = send({"email": "ada@example.net"})
    assert (dead.state, missing.state) == ("failed", "failed")
    assert "Connection refused" in dead.msg
    assert "no mail server is configured" in missing.msg


def test_webhook_gets_the_state_and_its_secret_stays_secret() -> None:
    with served(Web) as server:
        contact = {"webhook": f"http://127.0.0.1:{server.port}/{SECRET}", "webhook_headers": {"Authorization": SECRET}}
        delivery = send(contact)
    ((path, headers, body),) = server.posts
    assert (path, headers["Authorization"]) == (f"/{SECRET}", SECRET)
    told = json.loads(body)
    seen = {"name": "desk1", "isolation": "sealed", "proof": "witnessed", "alarm": ""}
    assert (told["anchor"], told["vms"]) == (ANCHOR, [seen])
    assert delivery.state == "done"
    assert SECRET not in str(delivery)


@pytest.mark.parametrize(("fault", "said"), [("fails", "500"), ("redirects", "302")])
def test_a_webhook_that_is_not_taken_is_failed(fault: str, said: str) -> None:
    with served(Web, fault) as server:
        delivery = send({"webhook": f"http://127.0.0.1:{server.port}/{SECRET}"})
    assert delivery.state == "failed"
    assert said in delivery.msg
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/{secret}",
        "nonsense/{secret}",
        "ftp://127.0.0.1:{port}/{secret}",
        "http://127.0.0.1:99999/{secret}",
    ],
)
def test_a_webhook_that_leads_nowhere_is_failed_without_its_secret(url: str) -> None:
    delivery = send({"webhook": url.format(port=free_port(), secret=SECRET)})
    assert delivery.state == "failed"
    assert SECRET not in str(delivery)


def test_one_hanging_contact_does_not_keep_the_others() -> None:
    with served(Web, "hangs") as dead, served(Mail) as alive:
        contacts = [
            {"role": "a", "webhook": f"http://127.0.0.1:{dead.port}/"},
            {"role": "b", "email": "ada@example.net"},
        ]
        began = time.monotonic()
        found = deliver(jobs(contacts, smtp(alive.port)), message(), 1)
        took = time.monotonic() - began
    assert [one.state for one in found] == ["failed", "done"]
    assert took < 30, "the server would keep it for ever"
