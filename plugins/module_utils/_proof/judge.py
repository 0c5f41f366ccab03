# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the cut of one VM proven, in both directions? Pure: no I/O, no Ansible.

Nothing that was not shown counts as shown, and whatever contradicts the cut outweighs all that speaks for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from .._model import printable

Data = Mapping[str, Any]
REPAIR = "Restart libvirtd on the KVM host, which builds it anew while the VMs run on, and run contain again"
STOP_IT = "Cut it off at the switch, or pause it (vm_power; its memory stays). Close the way around, and contain again"


class Proof(IntEnum):
    """How far a cut is proven; the order counts."""

    NONE = 0
    READBACK = 1
    WITNESSED = 2

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """What one source says: ``against`` contradicts the cut, ``missing`` is what it could not show."""

    shown: str = ""
    against: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Verdict:
    """The proof of one VM's cut."""

    proof: Proof
    required: Proof
    inbound: str
    outbound: str
    shortfall: str  # empty: as proven as required
    controls: tuple[str, ...]
    against: str = ""  # what contradicts the cut; "not measured" is no contradiction

    @property
    def line(self) -> str:
        """One line for a tired reader."""
        if self.shortfall:
            return f"proof {self.proof.word}, {self.required.word} is required: {self.shortfall}"
        return f"proof {self.proof.word}; in: {self.inbound}; out: {self.outbound}"


def judge(
    vm: str,
    mode: str,
    cut: Data,
    nics: Sequence[Data],
    counted: Sequence[Data],
    probes: Sequence[Data],
    required: Proof,
) -> Verdict:
    """Judge one VM. ``cut`` is its isolation outcome, ``nics`` what its hypervisor says of its NICs now."""
    if failed(cut, mode):
        return uncut(cut, required)
    taps = [tap(nic, counted, mode) for nic in nics]
    if not nics:
        return Verdict(Proof.WITNESSED, required, "it has no NIC", "it has no NIC", "", ())
    if all(off(nic) for nic in nics):
        return Verdict(Proof.WITNESSED, required, "it is off, no tap exists", "it is off, no tap exists", "", ())
    seen = [finding for probe in probes for finding in witness(vm, probe, mode)]
    seen = seen or [Finding(missing="no witness is named or could be used")]
    controls = tuple(sorted({c for probe in probes for target in of_vm(vm, probe) for c in target["controls"]}))
    return summed_up(taps, seen, controls, required)


def failed(cut: Data, mode: str) -> bool:
    return bool(cut.get("failed")) or (cut.get("after") or {}).get("isolation") != mode


def uncut(cut: Data, required: Proof) -> Verdict:
    why = printable(cut.get("msg") or "the hypervisor does not show the cut", 300)
    return Verdict(Proof.NONE, required, "not shown", "not shown", f"the isolation itself failed: {why}", ())


def unread(cut: Data, mode: str, why: str, required: Proof) -> Verdict:
    """The verdict on a VM that could not be read again after its cut: the cut's own read-back is all there is."""
    if failed(cut, mode):
        return uncut(cut, required)
    missing = f"the VM could not be read again: {printable(why, 300)}"
    short = missing if required > Proof.READBACK else ""
    return Verdict(Proof.READBACK, required, "not shown", "not shown", short, ())


def summed_up(taps: Sequence[Finding], seen: Sequence[Finding], controls: tuple[str, ...], required: Proof) -> Verdict:
    """All findings together. One good witness is enough; every tap must be shown."""
    against = "; ".join(one.against for one in (*taps, *seen) if one.against)
    inbound = next((one.shown for one in seen if one.shown), "not shown")
    outbound = "; ".join(sorted({one.shown for one in taps if one.shown})) or "not shown"
    if against:
        short = f"THE CUT DOES NOT HOLD: {against}. {STOP_IT}"
        return Verdict(Proof.NONE, required, inbound, outbound, short, controls, against)
    missing = [one.missing for one in taps if one.missing]
    if inbound == "not shown":
        missing += [one.missing for one in seen if one.missing]
    proof = Proof.READBACK if missing else Proof.WITNESSED
    if any(one.missing for one in taps):
        outbound = "not shown"
    return Verdict(
        proof, required, inbound, outbound, "; ".join(dict.fromkeys(missing)) if proof < required else "", controls
    )


def off(nic: Data) -> bool:
    """A NIC of a stopped VM has no live wiring, hence nothing that could carry a frame."""
    return not nic["device"] and not nic["wiring"]["live"]


def tap(nic: Data, counted: Sequence[Data], mode: str) -> Finding:
    """What the KVM host's kernel shows of one NIC."""
    name = f"NIC {nic['mac']}"
    if off(nic):
        return Finding(shown="no tap exists")
    if not nic["device"]:
        return Finding(missing=f"{name} ({nic['kind']}) has no tap whose frames the host could count")
    mine = [one for one in counted if one.get("device") == nic["device"] and one.get("mac") == nic["mac"]]
    if not mine or not mine[0]["shown"] or not mine[0]["delta"]:
        reason = mine[0]["reason"] if mine else "the KVM host was not asked"
        return Finding(missing=f"{name}: frames from and to the VM were not counted ({printable(reason, 200)})")
    filtered, delta = "filter" in nic["cut_by"], mine[0]["delta"]
    if filtered and mine[0]["broken"]:
        return Finding(against=f"{name}: {mine[0]['broken']}: changed behind libvirt's back. {REPAIR}")
    if filtered and mode == "sealed" and mine[0]["accepts"]:
        return Finding(against=f"{name}: the kernel's chains let something pass")
    leaked = delta["passed"] - (delta["accepted"] if mode == "forensic" else 0)
    if leaked:
        return Finding(against=f"{name}: {leaked} frames from the VM were not dropped")
    stopped = delta["from_host"] if "link" in nic["cut_by"] else 0  # no chain of the bridge sees these
    reached = delta["to_guest"] - stopped
    if reached > 0 and mode == "sealed":
        return Finding(against=f"{name}: {reached} frames reached the VM")
    told = f"0 frames passed, {delta['dropped']} dropped"
    if stopped and mode == "sealed":
        told += f", {stopped} of the host's own IPv6 ended at the link that is down"
    return Finding(shown=told if mode == "sealed" else f"{delta['accepted']} frames to collectors, else {told}")


def of_vm(vm: str, probe: Data) -> Iterator[Data]:
    return (target for target in probe.get("targets") or () if target["name"] == vm)


def witness(vm: str, probe: Data, mode: str) -> Iterator[Finding]:
    """What one witness shows. Who reaches no control target on the way to the VM proves nothing by hearing nothing.

    In ``forensic`` isolation the VM may ask for its collectors' MAC addresses by broadcast, and the witness hears that.
    """
    name = printable(str(probe.get("witness", "a witness")), 80)
    if probe.get("problem"):
        yield Finding(missing=f"witness {name} could not probe: {printable(str(probe['problem']), 200)}")
        return
    targets = list(of_vm(vm, probe))
    for target in targets:
        if target["answered"] or (target["heard"] and mode == "sealed"):
            how = ", ".join(target["answered"]) or "frames of its own"
            yield Finding(
                against=f"witness {name} still reaches {target['mac']} ({how}; heard {target['heard']} frames)"
            )
            return
    missing = [reason for reason in (gap(target, probe) for target in targets) if reason]
    if missing or not targets:
        yield Finding(missing=f"witness {name} proves nothing: {missing[0] if missing else 'it did not probe this VM'}")
        return
    tried = sorted({protocol for target in targets for protocol, one in target["tries"].items() if one["sent"]})
    reached = sorted({control for target in targets for control in target["controls"]})
    yield Finding(shown=f"silent to {name} by {', '.join(tried)}, while {', '.join(reached)} answered")


def gap(target: Data, probe: Data) -> str:
    """Why silence of this NIC means nothing; empty when it does."""
    if target["problem"]:
        return str(target["problem"])
    if not target["controls"]:
        return "it reached no control target on the way to the VM in the same window"
    if not any(target["tries"].get(protocol, {}).get("sent") for protocol in ("arp", "icmp")):
        errors = {one["error"] for one in target["tries"].values() if one["error"]}
        told = ", ".join(sorted(errors)) or "no address of the VM is known"
        return f"it could send neither ARP nor ICMP to {target['mac']} ({printable(told)})"
    if not all(one["sent"] for protocol, one in target["tries"].items() if protocol != "ipv6"):
        return f"some protocols could not be sent to {target['mac']}"
    return f"it lost {probe['lost']} frames and may have missed an answer" if probe.get("lost") else ""
