# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mail and webhooks, each within a deadline: a dead or hanging server costs seconds, never the response."""

from __future__ import annotations

import hashlib
import json
import smtplib
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Callable
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from ansible.module_utils.urls import open_url

from .._model import printable
from .message import Message

PORTS = {"starttls": 587, "tls": 465, "none": 25}


class NotDelivered(Exception):
    """A message that did not arrive; the text says why and never holds a secret."""


@dataclass(frozen=True)
class Delivery:
    """One message to one address of one contact, and what became of it."""

    channel: str  # mail or webhook
    role: str
    to: str  # without the secret part of a webhook's address
    state: str
    msg: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Job:
    """A delivery to be made."""

    channel: str
    role: str
    to: str
    send: Callable[[Message, float], str]


def jobs(contacts: Sequence[Mapping[str, Any]], smtp: Mapping[str, Any] | None) -> list[Job]:
    """Every address of every contact."""
    found = []
    for contact in contacts:
        role = str(contact["role"])
        if contact.get("email"):
            found.append(Job("mail", role, contact["email"], mail(contact["email"], smtp or {})))
        if contact.get("webhook"):
            found.append(Job("webhook", role, public_part(contact["webhook"]), webhook(contact)))
    return found


def deliver(wanted: Sequence[Job], message: Message, deadline: float) -> list[Delivery]:
    """Send all at once. What has not answered at the deadline counts as failed, although it may still arrive."""
    results: dict[int, Delivery] = {}

    def attempt(number: int, job: Job) -> None:
        began = time.monotonic()
        try:
            state, msg = "done", job.send(message, deadline)
        except NotDelivered as exc:
            state, msg = "failed", f"not delivered to {job.to}: {exc}"
        except Exception as exc:  # noqa: BLE001 - a delivery must end as a record, whatever the library does
            state, msg = "failed", f"not delivered to {job.to}: unexpected {type(exc).__name__}. Please report this."
        results[number] = Delivery(job.channel, job.role, job.to, state, msg, round(time.monotonic() - began, 2))

    threads = [threading.Thread(target=attempt, args=pair, daemon=True) for pair in enumerate(wanted)]
    end = time.monotonic() + deadline
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0))
    silent = f"no answer within {deadline:.0f} s, it may still arrive. Tell them by phone"
    return [
        results.get(n) or Delivery(j.channel, j.role, j.to, "failed", f"not delivered to {j.to}: {silent}", deadline)
        for n, j in enumerate(wanted)
    ]


def mail(to: str, smtp: Mapping[str, Any]) -> Callable[[Message, float], str]:
    def send(message: Message, timeout: float) -> str:
        if not smtp.get("host"):
            raise NotDelivered("no mail server is configured. Set smtp.host")
        security = smtp["security"]
        host, port = smtp["host"], smtp.get("port") or PORTS[security]
        try:
            letter = written(message, to, smtp["sender"])
            with closing(connect(host, port, security, smtp.get("ca_path"), timeout)) as server:
                if smtp.get("username"):
                    server.login(smtp["username"], smtp.get("password") or "")
                server.send_message(letter)
                server.putcmd("QUIT")  # the letter is taken: what the server says to this changes nothing
        except smtplib.SMTPResponseException as exc:
            raise NotDelivered(f"{host}:{port} answered {exc.smtp_code} {reason(exc.smtp_error)}") from exc
        except smtplib.SMTPRecipientsRefused as exc:
            code, text = next(iter(exc.recipients.values()))
            raise NotDelivered(f"{host}:{port} refused the recipient: {code} {reason(text)}") from exc
        except (OSError, smtplib.SMTPException, ValueError) as exc:
            raise NotDelivered(f"{host}:{port}: {reason(exc)}. Check smtp, or tell them by phone") from exc
        return f"mail accepted by {host}:{port} for {to}"

    return send


def connect(host: str, port: int, security: str, ca_path: str | None, timeout: float) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=ca_path)
    if security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout, context=context)
    server = smtplib.SMTP(host, port, timeout=timeout)
    if security == "starttls":
        try:
            server.starttls(context=context)
        except Exception:
            server.close()
            raise
    return server


def written(message: Message, to: str, sender: str) -> EmailMessage:
    """Headers made from addresses that parse, so that none can bring another header along."""
    letter = EmailMessage()
    letter["From"] = Address(addr_spec=sender)
    letter["To"] = Address(addr_spec=to)
    letter["Subject"] = printable(message.subject, 200)
    letter["Date"] = formatdate()
    letter["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(message.body, cte="7bit")  # so that the anchor stays in one piece in any reader
    return letter


def webhook(contact: Mapping[str, Any]) -> Callable[[Message, float], str]:
    url, place = str(contact["webhook"]), public_part(str(contact["webhook"]))

    def send(message: Message, timeout: float) -> str:
        try:
            answer = open_url(
                url,
                data=json.dumps(message.payload).encode("ascii"),
                headers={"Content-Type": "application/json", **(contact.get("webhook_headers") or {})},
                method="POST",
                timeout=timeout,
                ca_path=contact.get("ca_path"),
                follow_redirects="none",
                http_agent="vmward",
            )
        except HTTPError as exc:
            raise NotDelivered(f"the server answered {exc.code}") from exc
        except URLError as exc:
            raise NotDelivered(reason(exc.reason).replace(url, place)) from exc
        except (OSError, ValueError) as exc:
            raise NotDelivered(reason(exc).replace(url, place)) from exc
        with answer:
            if not 200 <= answer.status < 300:
                raise NotDelivered(f"the server answered {answer.status}")
            return f"webhook accepted by {place} with {answer.status}"

    return send


def public_part(url: str) -> str:
    """A webhook's address without what may be a secret in it, but with a mark that tells two of them apart."""
    parts = urlsplit(url)
    mark = hashlib.sha256(url.encode("utf-8")).hexdigest()[:8]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2] or 'nowhere'}/#{mark}"


def reason(cause: object) -> str:
    text = cause.decode("utf-8", "replace") if isinstance(cause, bytes) else str(cause)
    return printable(text, 200) or type(cause).__name__
