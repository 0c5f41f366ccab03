# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything somebody could do to a case behind the ledger's back, and whether the stand-alone verifier sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._case import verify as verifier
from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import CaseError, canonical, digest
from ansible_collections.vmward.remediation.plugins.module_utils._case.signature import SignatureError, principal, sign

from .conftest import Run, note

Lines = list[bytes]


def states(directory: Path, signers: Path | None = None, head: str | None = None) -> dict[str, str]:
    checks = verifier.verify(str(directory), str(signers) if signers else None, head)
    return {check.name: check.state for check in checks}


def sign_head(case: Run, key: Path, **forged: Any) -> dict[str, Any]:
    head = case("read")["head"]
    message = verifier.head_message("c1", head["seq"], head["hash"])
    result = {
        "over_seq": head["seq"],
        "over": head["hash"],
        "signature": sign(str(key), message),
        "principal": "ir-lead",
    }
    return case("append", entries=[{"phase": "case", "action": "signature", "result": {**result, **forged}}])


@pytest.fixture
def signed(case: Run, signer: tuple[Path, Path], store_file: Callable[..., dict[str, Any]]) -> str:
    """A case of seven entries, the sixth signed by the seventh; its anchor."""
    case("open")
    case("append", entries=[note(target=f"desk{n}") for n in range(4)])
    case("append", entries=[note("evidence-taken", artefacts=[store_file("a.img", b"evidence")])])
    return str(sign_head(case, signer[0])["anchor"])


def test_a_whole_case_holds(signed: str, directory: Path, signer: tuple[Path, Path]) -> None:
    assert states(directory, signer[1], signed) == {
        "chain": "ok",
        "anchor": "ok",
        "signatures": "ok",
        "artefacts": "ok",
        "bag": "NOT CHECKED",
    }


def relink(lines: Lines) -> Lines:
    """What a forger with write access does: make the chain fit again."""
    out: Lines = []
    for seq, line in enumerate(lines, 1):
        entry = {**json.loads(line), "seq": seq, "prev": digest(out[-1]) if out else "0" * 64}
        out.append(canonical(entry).encode())
    return out


def edit(lines: Lines) -> Lines:
    return [line.replace(b"desk2", b"desk9") for line in lines]


def remove(lines: Lines) -> Lines:
    return lines[:2] + lines[3:]


def reorder(lines: Lines) -> Lines:
    return [lines[0], lines[2], lines[1], *lines[3:]]


def respell(lines: Lines) -> Lines:
    return [lines[0].replace(b'":', b'": ', 1), *lines[1:]]


@pytest.mark.parametrize("attack", [edit, remove, reorder, respell])
def test_a_changed_line_breaks_the_chain(
    signed: str, directory: Path, signer: tuple[Path, Path], attack: Callable[[Lines], Lines]
) -> None:
    path = directory / "ledger.jsonl"
    path.write_bytes(b"\n".join(attack(path.read_bytes().splitlines())) + b"\n")
    assert states(directory)["chain"] == "FAILED"


@pytest.mark.parametrize("attack", [edit, remove, reorder])
def test_a_chain_made_to_fit_again_fails_signature_and_anchor(
    signed: str, directory: Path, signer: tuple[Path, Path], attack: Callable[[Lines], Lines]
) -> None:
    path = directory / "ledger.jsonl"
    path.write_bytes(b"\n".join(relink(attack(path.read_bytes().splitlines()))) + b"\n")
    found = states(directory, signer[1], signed)
    assert (found["chain"], found["signatures"], found["anchor"]) == ("ok", "FAILED", "FAILED")


def test_a_rollback_to_a_signed_head_is_seen_by_the_anchor_alone(
    case: Run, signed: str, directory: Path, signer: tuple[Path, Path]
) -> None:
    whole = (directory / "ledger.jsonl").read_bytes()
    anchor = case("append", entries=[note("release")])["anchor"]
    (directory / "ledger.jsonl").write_bytes(whole)
    assert "FAILED" not in states(directory, signer[1]).values()
    assert states(directory, signer[1], anchor)["anchor"] == "FAILED"
    assert states(directory, signer[1], signed)["anchor"] == "ok"


@pytest.mark.parametrize("head", ["abc", "7:abc", "7", "x:" + "0" * 64])
def test_an_anchor_that_was_mistyped_accuses_nobody(case: Run, signed: str, directory: Path, head: str) -> None:
    (anchor,) = [one for one in verifier.verify(str(directory), None, head) if one.name == "anchor"]
    assert (anchor.state, anchor.text) == ("FAILED", f"{head} is no anchor, which is SEQ:HASH; copy all of it")
    with pytest.raises(CaseError, match="is no anchor, which is SEQ:HASH"):
        case("read", expect_head=head)


def test_signers_that_cannot_be_read_accuse_no_signature(signed: str, directory: Path, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    (found,) = [one for one in verifier.verify(str(directory), gone, None) if one.name == "signatures"]
    assert (found.state, found.text) == ("FAILED", f"the allowed signers {gone} cannot be read")


def test_a_stolen_place_in_the_ledger_is_not_a_key(
    case: Run, signed: str, directory: Path, signer: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    sign_head(case, other)
    found = {check.name: check for check in verifier.verify(str(directory), str(signer[1]), None)}
    assert found["signatures"].state == "FAILED"
    assert "entry 8 does not hold" in found["signatures"].text


@pytest.mark.parametrize("forged", [{"over_seq": 1}, {"over_seq": 99}, {"over_seq": None}, {"over": "0" * 64}])
def test_a_signature_counts_only_for_what_it_signs(
    case: Run, signed: str, directory: Path, signer: tuple[Path, Path], forged: dict[str, Any]
) -> None:
    sign_head(case, signer[0], **forged)
    assert states(directory, signer[1])["signatures"] == "FAILED"


def test_an_unsigned_ledger_does_not_pass_as_signed(case: Run, directory: Path, signer: tuple[Path, Path]) -> None:
    case("open")
    assert states(directory, signer[1])["signatures"] == "FAILED"


def test_changed_missing_or_linked_evidence_is_seen(case: Run, signed: str, directory: Path, tmp_path: Path) -> None:
    path = directory / "evidence" / "data" / "a.img"
    path.write_bytes(b"EVIDENCE")
    assert states(directory)["artefacts"] == "FAILED"
    assert "changed" in case("verify")["msg"]
    path.unlink()
    assert states(directory)["artefacts"] == "FAILED"
    (tmp_path / "outside").write_bytes(b"evidence")
    path.symlink_to(tmp_path / "outside")
    assert states(directory)["artefacts"] == "FAILED"


def test_disposed_evidence_must_be_gone(case: Run, signed: str, directory: Path) -> None:
    artefact = case("read")["artefacts"]["evidence/data/a.img"]
    kept = {name: artefact[name] for name in ("path", "size", "sha256")}
    case("append", entries=[note("dispose", artefacts=[kept], result={"by": "ann", "hold_ended": "2026-01-01"})])
    assert states(directory)["artefacts"] == "FAILED"
    (directory / "evidence" / "data" / "a.img").unlink()
    assert states(directory)["artefacts"] == "ok"


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"null",
        b"{}",
        b'{"seq":1}',
        b'{"action":"open","artefacts":[7],"inputs":{},"prev":"' + b"0" * 64 + b'","result":{},"seq":1}',
        b'{"action":"open","artefacts":[],"inputs":[],"prev":"' + b"0" * 64 + b'","result":{},"seq":1}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_hostile_ledger_is_a_finding_not_a_traceback(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(line + b"\n")
    source = Path(verifier.__file__)
    done = subprocess.run([sys.executable, source, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("FAILED       chain")
    assert "Traceback" not in done.stderr


def test_an_artefact_cannot_point_out_of_the_case(case: Run, signed: str, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    for path in (str(tmp_path / "x"), "../../x"):
        assert not verifier.sound(str(directory), path, {"size": 1, "sha256": digest(b"x")}, True)


def test_the_program_says_it_all_and_its_status_can_be_scripted(
    signed: str, directory: Path, signer: tuple[Path, Path]
) -> None:
    command = [sys.executable, str(directory / "verify.py"), str(directory), "--allowed-signers", str(signer[1])]
    done = subprocess.run([*command, "--expect-head", signed], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 5)
    assert subprocess.run([*command, "--expect-head", "1:00"], capture_output=True, check=False).returncode == 1
    command[2] = "/nonexistent"
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2


def test_signing_says_why_it_cannot(tmp_path: Path, signer: tuple[Path, Path]) -> None:
    with pytest.raises(SignatureError, match="does not exist on the controller"):
        sign(str(tmp_path / "none"), b"x")
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    with pytest.raises(SignatureError, match="needs ssh-agent"):
        sign(str(locked), b"x")
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "secret", "-N", "", "-f", str(locked)], check=True, capture_output=True
    )
    with pytest.raises(SignatureError, match="is not in"):
        principal(sign(str(locked), b"x"), str(signer[1]))
    assert principal(sign(str(signer[0]), b"x"), str(signer[1])) == "ir-lead"
