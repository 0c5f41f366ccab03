# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify a case directory with Python 3.9 and OpenSSH alone; nothing else of the collection is needed.

    python3 verify.py CASE_DIRECTORY --allowed-signers FILE --expect-head SEQ:HASH

Use your own copy of this file, your own list of signers and an anchor from a notification: those beside the ledger can
be changed by whoever can change the ledger. Exit status: 0 all that was checked holds, 1 something does not, 2 no case.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

ANCHOR = re.compile(r"[0-9]+:[0-9a-f]{64}")
NAMESPACE = "vmward-ledger"


class Check(NamedTuple):
    name: str
    state: str  # ok, FAILED or NOT CHECKED
    text: str


def head_message(case: str, seq: int, sha256: str) -> bytes:
    """The bytes a signature entry signs."""
    return f"vmward-ledger-head {case} {seq} {sha256}\n".encode()


def hash_file(path: str) -> str:
    checksum = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            checksum.update(block)
    return checksum.hexdigest()


def verify(directory: str, signers: str | None, expected: str | None, rehash: bool = True) -> list[Check]:
    """Every check of the case in `directory`; `signers` is the path of an allowed-signers file."""
    with open(os.path.join(directory, "ledger.jsonl"), "rb") as stream:
        data = stream.read()
    chain, entries, hashes = check_chain(data)
    register = latest_artefacts(entries)
    checks = [
        chain,
        check_anchor(hashes, expected),
        check_signatures(entries, hashes, signers),
        check_artefacts(directory, register, rehash),
        check_bag(directory, entries, register),
    ]
    return [check._replace(text=check.text.encode("unicode_escape").decode("ascii")) for check in checks]


def check_chain(data: bytes) -> tuple[Check, list[dict[str, Any]], list[str]]:
    entries: list[dict[str, Any]] = []
    hashes: list[str] = []
    *lines, torn = data.split(b"\n")
    for seq, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            same = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() == line
            linked = same and entry["seq"] == seq and entry["prev"] == (hashes[-1] if hashes else "0" * 64)
            whole = linked and all(isinstance(entry[name], dict) for name in ("inputs", "result")) and entry["action"]
            whole = whole and all(a["path"] and isinstance(a["size"], int) and a["sha256"] for a in entry["artefacts"])
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            return Check("chain", "FAILED", f"line {seq} does not continue line {seq - 1}"), entries, hashes
        entries.append(entry)
        hashes.append(hashlib.sha256(line).hexdigest())
    if torn or not entries:
        return Check("chain", "FAILED", f"{len(torn)} bytes of a torn line at the end, or no entry"), entries, hashes
    return Check("chain", "ok", f"{len(entries)} entries, head {len(entries)}:{hashes[-1]}"), entries, hashes


def check_anchor(hashes: list[str], expected: str | None) -> Check:
    if not expected:
        return Check("anchor", "NOT CHECKED", "tail not anchored: a ledger cut back to an older end looks whole")
    if not ANCHOR.fullmatch(expected):
        return Check("anchor", "FAILED", f"{expected} is no anchor, which is SEQ:HASH; copy all of it")
    seq, _colon, wanted = expected.partition(":")
    held = seq.isdecimal() and 0 < int(seq) <= len(hashes) and hashes[int(seq) - 1] == wanted
    if not held:
        return Check("anchor", "FAILED", f"the ledger does not hold {expected}: it was rolled back or replaced")
    return Check("anchor", "ok", f"the ledger holds {seq}; {len(hashes) - int(seq)} later entries are not anchored")


def check_signatures(entries: list[dict[str, Any]], hashes: list[str], signers: str | None) -> Check:
    signatures = [entry for entry in entries if entry["action"] == "signature"]
    if not signers:
        return Check("signatures", "NOT CHECKED", f"key not anchored: {len(signatures)} signatures, no allowed signers")
    if not os.access(signers, os.R_OK):
        return Check("signatures", "FAILED", f"the allowed signers {signers} cannot be read")
    case = str(entries[0]["inputs"].get("case", "")) if entries else ""
    covered = 0
    for entry in signatures:
        seq, over = entry["result"].get("over_seq"), entry["result"].get("over")
        if not isinstance(seq, int) or not 0 < seq < entry["seq"] or hashes[seq - 1] != over:
            return Check("signatures", "FAILED", f"entry {entry['seq']} signs something that is not in this ledger")
        cause = check_signature(head_message(case, seq, over), entry["result"], signers)
        if cause:
            return Check("signatures", "FAILED", f"the signature in entry {entry['seq']} does not hold: {cause}")
        covered = max(covered, seq)
    if not covered:
        return Check("signatures", "FAILED", "no entry is signed")
    rest = sum(entry["action"] != "signature" for entry in entries[covered:])
    return Check("signatures", "ok", f"{len(signatures)} hold, entries 1 to {covered} are signed, {rest} after are not")


def check_signature(message: bytes, signature: dict[str, Any], signers: str) -> str:
    """Why the signature does not hold, or an empty text."""
    with tempfile.NamedTemporaryFile("w", suffix=".sig") as armored:
        armored.write(str(signature.get("signature")))
        armored.flush()
        command = ["ssh-keygen", "-Y", "verify", "-n", NAMESPACE, "-f", signers, "-s", armored.name]
        command += ["-I", str(signature.get("principal"))]
        done = subprocess.run(command, input=message, capture_output=True, check=False, timeout=30)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).decode("ascii", "replace").strip()[:300]


def latest_artefacts(entries: list[dict[str, Any]]) -> dict[str, Any]:
    register: dict[str, Any] = {}
    for entry in entries:
        for artefact in entry["artefacts"]:
            register[artefact["path"]] = None if entry["action"] == "dispose" else artefact
    return register


def check_artefacts(directory: str, register: dict[str, Any], rehash: bool) -> Check:
    bad = [path for path, artefact in register.items() if not sound(directory, path, artefact, rehash)]
    if bad:
        return Check("artefacts", "FAILED", f"{len(bad)} missing, changed or not disposed of: {', '.join(bad[:10])}")
    state = "ok" if rehash else "NOT CHECKED"
    return Check("artefacts", state, f"{len(register)} recorded, {'hashes' if rehash else 'only the sizes'} compared")


def sound(directory: str, path: str, artefact: dict[str, Any] | None, rehash: bool) -> bool:
    """Is the file what its newest entry says: a plain file inside the case, or disposed of (None)?"""
    full = os.path.join(directory, path)
    try:
        status = os.lstat(full)
    except FileNotFoundError:
        return artefact is None
    inside = not os.path.isabs(path) and os.path.realpath(full) == os.path.join(os.path.realpath(directory), path)
    if artefact is None or not inside or not stat.S_ISREG(status.st_mode) or status.st_size != artefact["size"]:
        return False
    return not rehash or bool(hash_file(full) == artefact["sha256"])


def check_bag(directory: str, entries: list[dict[str, Any]], register: dict[str, Any]) -> Check:
    """The payload manifest must say what the ledger says; its files are hashed with the artefacts."""
    bag = os.path.join(directory, "evidence")
    if [e["action"] for e in entries if e["action"] in ("seal", "reopen")][-1:] != ["seal"]:
        return Check("bag", "NOT CHECKED", "the case is not sealed")
    recorded = {p[9:]: a["sha256"] for p, a in register.items() if a and p.startswith("evidence/data/")}
    found = {os.path.relpath(os.path.join(at, f), bag) for at, _d, fs in os.walk(f"{bag}/data") for f in fs}
    try:
        if read_manifest(f"{bag}/manifest-sha256.txt") != recorded or found != set(recorded):
            return Check("bag", "FAILED", "payload, manifest and ledger do not name the same files and hashes")
        tags = read_manifest(f"{bag}/tagmanifest-sha256.txt")
        bad = [path for path, sha256 in tags.items() if hash_file(os.path.join(bag, path)) != sha256]
    except (OSError, ValueError) as exc:
        return Check("bag", "FAILED", f"cannot read the manifests: {exc}")
    return Check(
        "bag", "FAILED" if bad else "ok", f"{len(recorded)} payload files; tag files changed: {bad[:10] or 'none'}"
    )


def read_manifest(path: str) -> dict[str, str]:
    with open(path, encoding="utf-8") as stream:
        return {name: sha256 for sha256, name in (line.rstrip("\n").split("  ", 1) for line in stream)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify the ledger and evidence of a case.")
    parser.add_argument("directory")
    parser.add_argument("--allowed-signers")
    parser.add_argument("--expect-head", metavar="SEQ:HASH")
    parser.add_argument("--no-hash", action="store_true", help="compare sizes only")
    options = parser.parse_args()
    try:
        checks = verify(options.directory, options.allowed_signers, options.expect_head, not options.no_hash)
    except OSError as exc:
        sys.stderr.write(f"Cannot verify {options.directory!r}: {exc}.\n")
        return 2
    for check in checks:
        sys.stdout.write(f"{check.state:<12} {check.name:<11} {check.text}\n")
    return int(any(check.state == "FAILED" for check in checks))


if __name__ == "__main__":
    raise SystemExit(main())
