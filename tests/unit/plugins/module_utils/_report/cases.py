# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ledgers to tell stories about, made by the ledger's own code."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.vmward.remediation.plugins.module_utils._case.book import Book, plan_append
from ansible_collections.vmward.remediation.plugins.module_utils._case.entry import check_entry, timestamp
from ansible_collections.vmward.remediation.plugins.module_utils._case.lease import Claim
from ansible_collections.vmward.remediation.plugins.module_utils._proof.judge import STOP_IT

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
HOSTILE = "x\"'\n<script>alert(1)</script>{{ lookup('env','HOME') }}\u202edesk\x1b[31m"
SHA = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def entry(
    phase: str, action: str, target: str = "desk1", state: str = "done", msg: str = "", **more: Any
) -> dict[str, Any]:
    inputs, artefacts = more.pop("inputs", {}), more.pop("artefacts", [])
    result = {"state": state, "msg": msg, **more}
    return {
        "phase": phase,
        "action": action,
        "target": target,
        "inputs": inputs,
        "result": result,
        "artefacts": artefacts,
    }


def end(phase: str, target: str = "desk1", state: str = "done", msg: str = "", seconds: float = 1.0) -> dict[str, Any]:
    return entry(phase, "end", target, state, msg, seconds=seconds)


def artefact(path: str, size: int = 1 << 28, **more: Any) -> dict[str, Any]:
    return {"path": f"evidence/data/{path}", "size": size, "sha256": SHA, **more}


def opening(case: str = "2026-0142") -> dict[str, Any]:
    return {"phase": "case", "action": "open", "inputs": {"case": case, "metadata": {"title": "Alert on desk1"}}}


def book(*entries: dict[str, Any], case: str = "2026-0142") -> Book:
    """A ledger with one second between its entries."""
    written = Book()
    for number, one in enumerate([opening(case), *entries]):
        now = START + timedelta(seconds=number)
        named = check_entry({"actor": "ada@ir1", "host": "ir1", "time": timestamp(now), **one})
        written = plan_append(case, written, None, [named], Claim(), now).book
    return written


def contained(vm: str = "desk1", proof: str = "witnessed") -> list[dict[str, Any]]:
    witnessed = "app1 reached 192.0.2.1, and nothing answered from the VM; 0 frames left it in 3 s"
    missing = "no witness reached its control target"
    return [
        entry("contain", "isolate", vm, msg="sealed, 1 NIC", isolation="sealed", nics=1, seconds=0.6, changed=True),
        entry(
            "contain",
            "prove",
            vm,
            state="done" if proof == "witnessed" else "not_done",
            proof=proof,
            msg=witnessed if proof == "witnessed" else f"read back only: {missing}",
            required="witnessed",
            shortfall="" if proof == "witnessed" else missing,
            window=3,
        ),
        entry("contain", "vpn", vm, "not_done", "no VPN hook is configured (contain_vpn_hook)"),
        end("contain", vm, msg="sealed and proven" if proof == "witnessed" else "sealed", seconds=0.94),
    ]


def leaking(vm: str = "desk1") -> list[dict[str, Any]]:
    cut, prove, *_rest = contained(vm)
    against = "witness app1 still reaches 52:54:00:86:00:11 (arp; heard 3 frames)"
    msg = f"THE CUT DOES NOT HOLD: {against}. {STOP_IT}"
    seen = {"state": "failed", "proof": "none", "msg": f"{vm}: {msg}", "shortfall": msg, "against": against}
    return [cut, {**prove, "result": {**prove["result"], **seen}}, end("contain", vm, "failed", f"sealed, {vm}: {msg}")]


def uncuttable(vm: str = "desk1", isolation: str = "free") -> dict[str, Any]:
    msg = f"{vm} is NOT wholly isolated: 0000:3b:00.1 (hostdev) cannot be cut from outside by kvm1. Detach it at once."
    return entry("contain", "isolate", vm, "failed", msg, isolation=isolation)


def preserved(vm: str = "desk1") -> list[dict[str, Any]]:
    memory = artefact(f"{vm}/memory.elf", method="memory dump by the hypervisor", tools={"qemu": "7.2"})
    return [
        entry(
            "preserve", "memory", vm, msg="256.0 MiB in 2.1 s, frozen for 0.4 s", evidence="stored", artefacts=[memory]
        ),
        entry(
            "preserve",
            "connections",
            vm,
            msg="processes and sockets of the guest",
            evidence="stored",
            artefacts=[artefact(f"{vm}/guest.json", 4096)],
        ),
        entry(
            "preserve",
            "disks",
            vm,
            msg="vda, 1.2 GiB",
            evidence="stored",
            artefacts=[artefact(f"{vm}/vda.qcow2", 1 << 30)],
        ),
        entry("preserve", "logs", vm, "not_done", "waived by ada: no time", evidence="waived", by="ada"),
        end("preserve", vm, msg="memory, connections and disks are stored", seconds=31.25),
    ]


def remediated(vm: str = "desk1") -> list[dict[str, Any]]:
    finding = {"disk": "vda", "path": "/home/user/invoice.bin", "rule": "eicar", "engine": "yara-x", "sha256": SHA}
    considered = [{"name": "clean-baseline", "created": "2026-01-01T00:00:00Z", "verdict": "clean"}]
    return [
        entry(
            "scan",
            "disk",
            vm,
            msg="1 finding in 14,523 files",
            verdict="infected",
            what="active disk",
            findings=[finding],
        ),
        end("scan", vm, msg="infected", seconds=128),
        entry(
            "restore",
            "clean_point",
            vm,
            msg="clean-baseline",
            chosen="clean-baseline",
            kind="snapshot",
            verdict="clean",
            considered=considered,
        ),
        entry("restore", "revert", vm, msg="reverted to clean-baseline, disks only"),
        end("restore", vm, msg="on clean-baseline, scanned before its first boot", seconds=40),
        entry("release", "reconnect", vm, msg="wired as before, reachable"),
        end("release", vm, msg="back in service", seconds=22.5),
    ]
