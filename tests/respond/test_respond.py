# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole response on a real, infected VM; every claim is looked at with programs that know nothing of vmward."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real
Play = Callable[..., "subprocess.CompletedProcess[str]"]
LAB = Path("/var/lib/vmward-lab")
CASES = Path("/var/lib/vmward-lab-cases")
VM, CASE = "desk1", "respond-test"
ADDRESSES = {"desk1": "192.168.86.11", "desk2": "192.168.86.12"}  # both are infected, and responded to in one run


def run(*argv: str, check: bool = True, text: str = "") -> str:
    done = subprocess.run(argv, capture_output=True, text=True, input=text, check=False)
    assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def virsh(*argv: str) -> str:
    return run("virsh", "-c", "qemu:///system", *argv)


class Tap:
    """Counts what passes the VM's tap, from the moment that its link is said to be down."""

    def __init__(self) -> None:
        self.device = re.findall(r"vnet\d+", virsh("domiflist", VM))[0]
        self.at_claim: tuple[int, int] | None = None
        self.last: tuple[int, int] | None = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def counters(self) -> tuple[int, int]:
        """Frames from the guest, and frames to it but for those of the host's own IPv6 on the tap."""
        statistics = Path(f"/sys/class/net/{self.device}/statistics")
        own = re.search(r"Ip6OutRequests\s+(\d+)", Path(f"/proc/net/dev_snmp6/{self.device}").read_text())
        to_guest = int((statistics / "tx_packets").read_text()) - (int(own[1]) if own else 0)
        return int((statistics / "rx_packets").read_text()), to_guest

    def watch(self) -> None:
        while not self.done.is_set():
            try:
                counted = self.counters()
            except OSError:
                return  # the VM was stopped, its tap is gone
            if self.at_claim is None and "vmward-sealed" in virsh("dumpxml", VM):
                self.at_claim = counted = self.counters()
            self.last = counted
            time.sleep(0.2)


@pytest.fixture(scope="module")
def response(lab: Play) -> Iterator[dict[str, Any]]:
    """Two VMs infected, then responded to; what was seen of desk1 meanwhile."""
    lab("lab_up", "-e", "lab_fresh=true")
    lab("lab_infect", "-e", f"lab_infect_vms={','.join(ADDRESSES)}")
    subprocess.run(["rm", "-rf", str(CASES / CASE)], check=True)
    before = Tap()
    sent = before.counters()[0]
    time.sleep(3)
    beaconed = before.counters()[0] - sent
    done = lab("respond", "-e", f"vmward_vms={','.join(ADDRESSES)}", "-e", f"vmward_case={CASE}", check=False)
    before.done.set()
    before.thread.join()
    yield {"play": done, "tap": before, "beaconed": beaconed, "entries": entries()}
    lab("lab_up", "-e", "lab_fresh=true")


def entries() -> list[dict[str, Any]]:
    ledger = CASES / CASE / "ledger.jsonl"
    return [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []


def results(response: dict[str, Any], phase: str, action: str) -> list[dict[str, Any]]:
    mine = [e for e in response["entries"] if e["target"] == VM]
    return [e["result"] for e in mine if (e["phase"], e["action"]) == (phase, action)]


def planted() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((LAB / "infection.json").read_text())[VM]
    return told


def test_it_succeeds_and_says_what_is_not_done(response: dict[str, Any]) -> None:
    done = response["play"]
    assert done.returncode == 0, done.stdout[-15000:] + done.stderr[-3000:]
    assert "NOT DONE" in done.stdout
    assert "no VPN hook is configured" in done.stdout


def test_nothing_passed_from_the_moment_of_the_claim(response: dict[str, Any]) -> None:
    tap = response["tap"]
    assert response["beaconed"] > 5, "the beacon was silent before the cut: the measurement would prove nothing"
    assert tap.at_claim is not None
    assert tap.last is not None
    assert tap.last[0] - tap.at_claim[0] == 0, "frames came from the guest after the cut was claimed"
    assert tap.last[1] - tap.at_claim[1] == 0, "frames went to the guest after the cut was claimed"


def test_the_cut_is_witnessed(response: dict[str, Any]) -> None:
    assert [proof["proof"] for proof in results(response, "contain", "prove")] == ["witnessed"]


def test_the_memory_image_holds_what_only_the_memory_held(response: dict[str, Any]) -> None:
    image = next((CASES / CASE / "evidence").rglob(f"{VM}-*/memory.elf"))
    run("grep", "--quiet", "--text", "--fixed-strings", planted()["ram_marker"], str(image))


def test_the_evidence_is_what_the_ledger_says(response: dict[str, Any]) -> None:
    artefacts = [a for e in response["entries"] if e["action"] == "evidence" for a in e["artefacts"]]
    assert {Path(a["path"]).name for a in artefacts} >= {"memory.elf", "disk-vda.qcow2", "guest-claims.json"}
    for artefact in artefacts:
        assert run("sha256sum", str(CASES / CASE / artefact["path"])).split()[0] == artefact["sha256"], artefact["path"]


def test_the_stand_alone_verifier_agrees(response: dict[str, Any]) -> None:
    case = CASES / CASE
    run(
        "/usr/bin/python3",
        str(case / "verify.py"),
        str(case),
        "--allowed-signers",
        str(LAB / "signing/allowed_signers"),
    )


def test_the_sample_is_found_and_gone_afterwards(response: dict[str, Any]) -> None:
    (first, *_rest) = results(response, "scan", "disk")
    assert first["verdict"] == "infected"
    assert set(planted()["files"]) <= {finding["path"] for finding in first["findings"]}
    assert [scan["verdict"] for scan in results(response, "restore", "rescan")] == ["clean"]


@pytest.mark.parametrize("vm", ADDRESSES)
def test_it_is_back_in_service_as_it_was(response: dict[str, Any], vm: str) -> None:
    for definition in (virsh("dumpxml", vm), virsh("dumpxml", vm, "--inactive")):
        assert "filterref" not in definition
        assert "state='down'" not in definition
        assert "xmlns/isolation" not in definition
    key, hosts = LAB / "ssh/id_ed25519", LAB / "ssh/known_hosts"
    login = ["ssh", "-n", "-i", str(key), "-o", f"UserKnownHostsFile={hosts}", "-o", "BatchMode=yes"]
    login.append(f"root@{ADDRESSES[vm]}")
    assert run(*login, "hostname").strip() == vm
    for path in planted()["files"]:
        run(*login, f"test ! -e {path}")


def test_the_report_is_one_file_without_outside_help(response: dict[str, Any]) -> None:
    (report, *_others) = sorted((CASES / CASE / "report").glob("*.html"))
    text = report.read_text()
    assert planted()["files"][0] in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
