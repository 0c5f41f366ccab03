# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenSSH signatures, made on the controller: the private key, or the agent that holds it, never leaves it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any

from .entry import Entry, digest, says
from .verify import NAMESPACE


class SignatureError(Exception):
    """No signature could be made; the message says why and what to do."""


def sign(key: str, message: bytes) -> str:
    """The armored signature; `key` is a private key, or a public key whose private half an ssh-agent holds."""
    if not os.path.isfile(key):
        raise SignatureError(f"the signing key {key} does not exist on the controller")
    done = _run(["ssh-keygen", "-Y", "sign", "-f", key, "-n", NAMESPACE], message)
    if done.returncode != 0 or b"BEGIN SSH SIGNATURE" not in done.stdout:
        cause = done.stderr.decode("utf-8", "replace").strip()[:300]
        raise SignatureError(f"ssh-keygen could not sign with {key}: {cause}. A key with a passphrase needs ssh-agent")
    return done.stdout.decode("ascii")


def check_extends(
    signed: tuple[int, str], lines: Sequence[str], head: tuple[int, str], mine: Sequence[tuple[Entry, int]]
) -> None:
    """Sign nothing blindly: the head must continue what was signed last, and hold these entries as they were sent."""
    seq, prev = signed
    entries: dict[int, Any] = {}
    for line in lines:
        entry = json.loads(line)
        seq += 1
        if entry.get("seq") != seq or entry.get("prev") != prev:
            raise SignatureError(
                f"entry {seq} of the ledger does not continue the head that this controller signed last"
            )
        prev = digest(line.encode("ascii", "replace"))
        entries[seq] = entry
    if (seq, prev) != head:
        raise SignatureError("the ledger does not continue the head that this controller signed last")
    for sent, at in mine:
        if at > signed[0] and not says(entries.get(at, {}), sent):
            raise SignatureError(f"entry {at} of the ledger is not what was sent to be recorded")


def principal(signature: str, allowed_signers: str) -> str:
    """Who signed, according to the allowed signers; an unknown key is an error now, not at the trial."""
    with tempfile.NamedTemporaryFile("w", suffix=".sig") as armored:
        armored.write(signature)
        armored.flush()
        command = ["ssh-keygen", "-Y", "find-principals", "-s", armored.name, "-f", allowed_signers]
        done = _run(command, b"")
    names = done.stdout.decode("utf-8", "replace").split()
    if done.returncode != 0 or not names:
        raise SignatureError(f"the key that signed is not in {allowed_signers}. Add it there, or sign with another")
    return names[0].split(",")[0]


def _run(command: Sequence[str], message: bytes) -> subprocess.CompletedProcess[Any]:
    """Without a terminal, so that a passphrase question fails instead of waiting for ever."""
    environment = {**os.environ, "SSH_ASKPASS": "/bin/false", "SSH_ASKPASS_REQUIRE": "force", "LC_ALL": "C"}
    try:
        return subprocess.run(
            command,
            input=message,
            capture_output=True,
            env=environment,
            start_new_session=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError as exc:
        raise SignatureError("ssh-keygen is not installed on the controller. Install the OpenSSH client") from exc
    except subprocess.TimeoutExpired as exc:
        raise SignatureError("ssh-keygen did not answer within 60 s; does the key wait for a touch?") from exc
