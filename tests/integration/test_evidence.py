# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory, disks and guest claims of a real VM, kept locally and over a real ssh; killed, full and tampered with."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.tests.ssh_server import SshServer, serve

COLLECTIONS = Path(__file__).resolve().parents[2] / "build" / "collections"
MODULES = "ansible_collections.vmward.remediation.plugins.modules"
URI = "qemu:///system"
MiB = 1 << 20
NAME = "vmward-evidence"
DISK = 64 * MiB
MARKER = b"VMWARD-EVIDENCE-BOOTED"

pytestmark = [
    pytest.mark.real,
    pytest.mark.usefixtures("lab"),
    pytest.mark.skipif(os.geteuid() != 0, reason="starts a VM: needs root"),
]


def sh(*argv: str, **options: Any) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, **options)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def virsh(*argv: str) -> str:
    return sh("virsh", "-q", "-c", URI, *argv)


@dataclass
class Machine:
    """A VM without a guest: firmware and a boot sector that spins, whose marker is in its memory therefore."""

    id: str
    directory: Path

    @property
    def power(self) -> str:
        return virsh("domstate", self.id).strip()

    def start(self, *options: str) -> None:
        virsh("start", self.id, *options)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    directory = Path(f"/var/lib/{NAME}-{os.getpid()}")
    directory.mkdir(mode=0o711)
    directory.chmod(0o711)
    made = Machine(str(uuid.uuid4()), directory)
    base, top = directory / "base.qcow2", directory / "top.qcow2"
    boot = directory / "boot.raw"
    boot.write_bytes((b"\xeb\xfe" + MARKER).ljust(510, b"\0") + b"\x55\xaa" + bytes(DISK - 512))
    sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(boot), str(base))
    boot.unlink()
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(top))
    sh("qemu-io", "-f", "qcow2", "-c", "write -P 0xcd 8M 3M", str(top))
    definition = directory / "domain.xml"
    definition.write_text(
        f"""<domain type='qemu'><name>{NAME}-{os.getpid()}</name><uuid>{made.id}</uuid><memory unit='MiB'>128</memory>
        <os><type arch='x86_64'>hvm</type></os><devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{top}'/>
        <target dev='vda' bus='virtio'/></disk>
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
        </devices></domain>"""
    )
    try:
        virsh("define", str(definition))
        yield made
    finally:
        subprocess.run(["virsh", "-q", "-c", URI, "destroy", made.id], check=False, capture_output=True)
        subprocess.run(["virsh", "-q", "-c", URI, "undefine", made.id], check=False, capture_output=True)
        shutil.rmtree(directory)


@pytest.fixture
def running(machine: Machine) -> Machine:
    if machine.power != "running":
        if machine.power == "paused":
            virsh("destroy", machine.id)
        machine.start()
        time.sleep(2)  # the firmware loads the boot sector
    return machine


@pytest.fixture
def stopped(machine: Machine) -> Machine:
    if machine.power != "shut off":
        virsh("destroy", machine.id)
    return machine


@pytest.fixture
def case(tmp_path: Path) -> Path:
    (tmp_path / "case").mkdir()
    return tmp_path / "case"


def arguments(machine: Machine, case: Path, **more: Any) -> dict[str, Any]:
    asked = {"hypervisors": {"kvm1": {"libvirt": {"uri": URI}}}, "vm": machine.id, "case": "c1"}
    return {**asked, "dest": {"path": str(case)}, **more}


def run(verb: str, options: dict[str, Any], check: bool = False) -> dict[str, Any]:
    """The module itself, as it runs on a data host."""
    if verb != "vm_guest_run":
        options = {"scratch": str(Path(options["dest"]["path"]).parent / "scratch"), **options}
        for place in Path(options["scratch"]).parents:  # QEMU must get through pytest's private directories
            if place.stat().st_mode & 0o011 != 0o011:
                place.chmod(place.stat().st_mode | 0o011)
    text = json.dumps({"ANSIBLE_MODULE_ARGS": {**options, "_ansible_check_mode": check}})
    code = (
        "import sys; from ansible.module_utils.testing import patch_module_args; import importlib, json\n"
        f"with patch_module_args(json.loads(sys.stdin.read())['ANSIBLE_MODULE_ARGS']):\n"
        f"    importlib.import_module('{MODULES}.{verb}').main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
    )
    assert done.stdout, done.stderr
    return dict(json.loads(done.stdout))


def stored(case: Path) -> list[str]:
    return sorted(path.name for path in case.rglob("*") if path.is_file())


def left(case: Path) -> list[str]:
    return sorted(path.name for path in (case.parent / "scratch").iterdir())


def holds(path: Path, marker: bytes) -> bool:
    return marker in path.read_bytes()


def test_memory_of_a_running_vm_is_whole_and_its_freeze_is_measured(running: Machine, case: Path) -> None:
    predicted = run("vm_memory_dump", arguments(running, case), check=True)
    assert predicted["changed"] is True
    assert stored(case) == []
    told = run("vm_memory_dump", arguments(running, case))
    assert told["changed"] is True, told
    artefact, sidecar = told["artefacts"]
    file = case / artefact["path"]
    assert file.stat().st_size == artefact["size"] >= 128 * MiB
    assert predicted["estimate"]["bytes"] >= artefact["size"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == artefact["sha256"]
    assert hashlib.sha256((case / sidecar["path"]).read_bytes()).hexdigest() == sidecar["sha256"]
    assert holds(file, MARKER)
    assert 0 < artefact["freeze_seconds"] < artefact["seconds"]
    assert artefact["freeze_measured_by"] == "the hypervisor's stop and resume events"
    assert told["evidence"] == {"memory": {"state": "stored"}}
    assert running.power == told["vm"]["power"] == "running"
    assert left(case) == []

    again = run("vm_memory_dump", arguments(running, case, verify=True))
    assert (again["changed"], again["artefacts"]) == (False, told["artefacts"])

    with file.open("r+b") as tampered:
        tampered.seek(MiB)
        tampered.write(b"tampered")
    assert run("vm_memory_dump", arguments(running, case))["changed"] is False  # the size alone is compared
    found = run("vm_memory_dump", arguments(running, case, verify=True))
    assert found["failed"] is True
    assert "was altered" in found["msg"]


def test_a_paused_vm_stays_paused(running: Machine, case: Path) -> None:
    virsh("suspend", running.id)
    told = run("vm_memory_dump", arguments(running, case))
    assert told["artefacts"][0]["freeze_seconds"] == 0
    assert "paused already" in told["artefacts"][0]["freeze_measured_by"]
    assert run("vm_disk_export", arguments(running, case))["changed"] is True
    assert running.power == "paused"
    virsh("resume", running.id)


def test_a_stopped_vm_has_no_memory_and_that_is_told(stopped: Machine, case: Path) -> None:
    told = run("vm_memory_dump", arguments(stopped, case))
    assert (told["changed"], told["available"]) == (False, False)
    assert told["evidence"]["memory"]["state"] == "unavailable"
    assert "stopped" in told["evidence"]["memory"]["reason"]
    assert stored(case) == []


@pytest.mark.parametrize("power", ["running", "stopped"])
def test_a_disk_is_exported_with_its_whole_chain(request: pytest.FixtureRequest, case: Path, power: str) -> None:
    machine: Machine = request.getfixturevalue(power)
    told = run("vm_disk_export", arguments(machine, case))
    assert told["changed"] is True, told
    image = case / told["artefacts"][0]["path"]
    sh("qemu-img", "compare", "-U", "-f", "qcow2", "-F", "qcow2", str(image), str(machine.directory / "top.qcow2"))
    info = json.loads(sh("qemu-img", "info", "-f", "qcow2", "--output", "json", str(image)))
    assert "backing-filename" not in info
    assert info["virtual-size"] == DISK
    assert image.stat().st_size < 8 * MiB  # sparse
    assert told["evidence"] == {"disks": {"state": "stored"}}
    assert machine.power == {"running": "running", "stopped": "shut off"}[power]
    assert left(case) == []
    assert run("vm_disk_export", arguments(machine, case))["changed"] is False


def test_bad_input_is_refused_before_anything_is_touched(running: Machine, case: Path) -> None:
    wrong = run("vm_disk_export", arguments(running, case, disks=["vdz"]))
    assert "vdz" in wrong["msg"]
    assert "has no such disk" in wrong["msg"] or "it has vda" in wrong["msg"]
    assert "No VM 'nobody'" in run("vm_memory_dump", {**arguments(running, case), "vm": "nobody"})["msg"]
    folder = {"path": str(case), "folder": "../../etc"}
    assert "dest.folder" in run("vm_memory_dump", arguments(running, case, dest=folder))["msg"]
    assert "Open the case" in run("vm_memory_dump", arguments(running, case / "none"))["msg"]
    two = {"kvm1": {"libvirt": {"uri": URI}}, "kvm2": {"libvirt": {"uri": URI}}}
    assert "only" in run("vm_memory_dump", arguments(running, case, hypervisors=two))["msg"]
    assert stored(case) == []


def test_a_deadline_that_passes_is_told_and_the_next_run_takes_it_anew(running: Machine, case: Path) -> None:
    late = run("vm_memory_dump", arguments(running, case, deadline=0))
    assert late["failed"] is True
    assert "still runs" in late["msg"]
    assert (stored(case), left(case)) == ([], [])
    late = run("vm_disk_export", arguments(running, case, deadline=0))
    assert late["failed"] is True
    assert run("vm_memory_dump", arguments(running, case))["changed"] is True
    assert run("vm_disk_export", arguments(running, case))["changed"] is True
    assert running.power == "running"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 64 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=64m,mode=0711", "tmpfs", str(place))
    yield place
    sh("umount", str(place))


def test_no_room_is_told_with_numbers_before_anything_is_touched(running: Machine, case: Path, small: Path) -> None:
    (small / "case").mkdir()
    scratch = str(case.parent / "scratch")
    told = run("vm_memory_dump", arguments(running, small / "case", scratch=scratch))
    assert told["failed"] is True
    assert "64 MiB free, 176 MiB are needed. Nothing was touched" in told["msg"]
    assert (stored(small), left(case)) == ([], [])


def test_a_store_that_fills_up_keeps_nothing_and_says_how_the_vm_is(running: Machine, case: Path, small: Path) -> None:
    (small / "case").mkdir()
    (small / "other").write_bytes(os.urandom(64 * MiB - 100 * 1024))  # an idle guest's memory is mostly holes
    scratch = str(case.parent / "scratch")
    told = run("vm_memory_dump", arguments(running, small / "case", scratch=scratch, free_space_factor=0))
    assert told["failed"] is True
    assert "No space left" in told["msg"]
    assert "The VM is running. Free space" in told["msg"]
    assert (stored(small / "case"), left(case)) == ([], [])


def test_a_scratch_that_fills_up_keeps_nothing(running: Machine, case: Path, small: Path) -> None:
    options = arguments(running, case, scratch=str(small / "scratch"), free_space_factor=0)
    told = run("vm_memory_dump", options)
    assert told["failed"] is True
    assert "The VM is running" in told["msg"]
    assert stored(case) == []
    assert list((small / "scratch").iterdir()) == []
    assert running.power == "running"


def test_a_scratch_that_others_may_write_is_refused(running: Machine, case: Path) -> None:
    (case.parent / "scratch").mkdir()
    (case.parent / "scratch").chmod(0o777)
    assert "others may write there" in run("vm_memory_dump", arguments(running, case))["msg"]


def test_a_guest_without_an_agent_is_told_and_no_failure(running: Machine, case: Path) -> None:
    told = run("vm_guest_run", arguments(running, case))
    assert not told.get("failed")
    assert (told["changed"], told["available"], told["artefacts"]) == (False, False, [])
    assert told["evidence"]["connections"]["state"] == "unavailable"
    assert "agent" in told["evidence"]["connections"]["reason"]


# Killed and taken up again


def playbook(machine: Machine, case: Path, verb: str = "vm_memory_dump") -> subprocess.Popen[str]:
    """The action with its asynchronous job, as a responder runs it; what it prints goes into ``output``."""
    for place in case.parents:
        if place.stat().st_mode & 0o011 != 0o011:
            place.chmod(place.stat().st_mode | 0o011)
    task = {f"vmward.remediation.{verb}": arguments(machine, case, scratch=str(case.parent / "scratch"))}
    play = {"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": [{**task, "register": "told"}]}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    play["tasks"].append({"ansible.builtin.copy": {"content": "{{ told }}", "dest": str(case.parent / "told")}})  # type: ignore[attr-defined]
    (case.parent / "play.json").write_text(json.dumps([play]))
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_ASYNC_DIR": str(case.parent / "jobs"),
    }
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "localhost,", str(case.parent / "play.json")]
    with (case.parent / "output").open("w") as output:
        return subprocess.Popen(
            argv, env=environment, text=True, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )


def holder(path: Path, seconds: float = 60) -> int:
    """The process that holds a lock file open."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for one in Path("/proc").glob("[0-9]*/fd/*") if path.exists() else ():
            try:
                if os.readlink(one) == str(path):
                    return int(one.parts[2])
            except OSError:
                continue
        time.sleep(0.002)
    raise AssertionError(f"nobody holds {path}")


@pytest.mark.parametrize("fate", [signal.SIGCONT, signal.SIGKILL])
def test_a_killed_controller_is_followed_by_one_that_takes_over(
    running: Machine, case: Path, fate: signal.Signals
) -> None:
    first = playbook(running, case)
    job = holder(case.parent / "scratch" / f"{running.id}.lock")
    while not list((case.parent / "jobs").glob("vmward-*.progress")):
        time.sleep(0.002)  # nothing to show yet
    os.kill(job, signal.SIGSTOP)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = playbook(running, case)
    printed, end = case.parent / "output", time.monotonic() + 120
    while fate is signal.SIGCONT and not re.search(f"{running.id}: (copy of )?memory", printed.read_text()):
        assert second.poll() is None, "it waits for the job that still works"
        assert time.monotonic() < end, "it shows the progress of the job that it waits for"
        time.sleep(0.2)
    os.kill(job, fate)
    assert second.wait(300) == 0, printed.read_text()
    told = json.loads((case.parent / "told").read_text())
    assert told["changed"] is (fate is signal.SIGKILL)
    artefact = told["artefacts"][0]
    assert hashlib.sha256((case / artefact["path"]).read_bytes()).hexdigest() == artefact["sha256"]
    assert stored(case) == ["memory.elf", "memory.elf.json"]
    assert left(case) == []
    assert running.power == "running"


# Over ssh


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with serve(tmp_path_factory.mktemp("sshd")) as made:
        yield made


def far(server: SshServer, case: Path, **more: str) -> dict[str, Any]:
    keys = {"identity_file": str(server.identity), "known_hosts": str(server.known_hosts)}
    return {"path": str(case), "host": "root@127.0.0.1", "port": server.port, **keys, **more}


def test_evidence_goes_over_ssh_straight_to_its_host(running: Machine, case: Path, server: SshServer) -> None:
    options = arguments(running, case, dest=far(server, case))
    assert run("vm_memory_dump", options, check=True)["changed"] is True
    told = run("vm_memory_dump", options)
    assert told["changed"] is True, told
    artefact = told["artefacts"][0]
    assert hashlib.sha256((case / artefact["path"]).read_bytes()).hexdigest() == artefact["sha256"]
    assert artefact["location"].startswith("root@127.0.0.1:")
    assert run("vm_disk_export", options)["changed"] is True
    assert run("vm_memory_dump", {**options, "verify": True})["changed"] is False
    assert stored(case) == ["disk-vda.qcow2", "disk-vda.qcow2.json", "memory.elf", "memory.elf.json"]


def test_an_unknown_host_key_or_a_refused_log_in_fails_before_the_guest_is_stopped(
    running: Machine, case: Path, server: SshServer, tmp_path: Path
) -> None:
    (tmp_path / "nobody").touch()
    strange = run(
        "vm_memory_dump", arguments(running, case, dest=far(server, case, known_hosts=str(tmp_path / "nobody")))
    )
    assert "Host key verification failed" in strange["msg"]
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    refused = run(
        "vm_memory_dump", arguments(running, case, dest=far(server, case, identity_file=str(tmp_path / "other")))
    )
    assert "Permission denied" in refused["msg"]
    assert stored(case) == []


def test_a_far_case_that_was_not_opened_is_told(running: Machine, case: Path, server: SshServer) -> None:
    told = run("vm_memory_dump", arguments(running, case, dest=far(server, case / "none")))
    assert "Open the case" in told["msg"]
    assert "on root@127.0.0.1" in told["msg"]


# A hostile agent in a guest of its own

AGENT = r"""#!/bin/busybox sh
export PATH=/bin
for kind in devtmpfs:dev proc:proc sysfs:sys; do /bin/busybox mount -t "${kind%:*}" none "/${kind#*:}"; done
while read -r driver; do insmod "/drivers/$driver"; done < /drivers/order
insmod /virtio_console.ko
until [ -c /dev/vport1p1 ] || [ -c /dev/vport0p1 ]; do usleep 50000; done
exec 3<>"$(ls /dev/vport*p1)"
set -- MODES  # one after the other, a new one at each ping
mode=none; rest="$*"
while read -r line <&3; do
  id=$(echo "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *guest-sync*) echo "{\"return\": $id}" >&3 ;;
    *guest-ping*) mode=${rest%% *}; rest=${rest#* }; [ "$mode" = hang ] || echo '{"return": {}}' >&3 ;;
    *guest-exec-status*)
      case $mode in
        good) echo '{"return": {"exited": true, "exitcode": 0, "out-data": "aGVsbG8="}}' >&3 ;;
        lie) echo '{"return": {"exited": true, "exitcode": "none", "out-data": "%%%"}}' >&3 ;;
        endless) echo '{"return": {"exited": false}}' >&3 ;;
        flood) yes AAAAAAAAAAAAAAAA | tr -d '\n' | head -c 30000000 >&3 ;;
      esac ;;
    *guest-exec*) echo '{"return": {"pid": 7}}' >&3 ;;
  esac
done
"""
LAB = Path("/var/lib/vmward-lab")


@pytest.fixture
def liar(request: pytest.FixtureRequest, lab: object, tmp_path: Path) -> Iterator[Machine]:
    """The lab's kernel and drivers, with an init that is the agent; its parameter: how that behaves, ping by ping."""
    directory = Path(f"/var/lib/{NAME}-liar-{os.getpid()}")
    directory.mkdir(mode=0o711)
    directory.chmod(0o711)
    over = tmp_path / "over"
    over.mkdir()
    (over / "init").write_text(AGENT.replace("MODES", request.param))
    (over / "init").chmod(0o755)
    disk = str(tmp_path / "golden.raw")
    sh("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", str(LAB / "golden/golden.qcow2"), disk)
    listing = sh("debugfs", "-R", "ls -p /usr/lib/modules", disk)
    (version,) = {word for word in listing.replace("/", " ").split() if word.endswith("-amd64")}
    driver = f"/usr/lib/modules/{version}/kernel/drivers/char/virtio_console.ko"
    sh("debugfs", "-R", f"dump {driver} {over}/virtio_console.ko", disk)
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc"], cwd=over, input=b"init\nvirtio_console.ko\n", capture_output=True, check=True
    )
    (directory / "initrd").write_bytes((LAB / "boot/initrd.img").read_bytes() + archive.stdout)
    shutil.copy(LAB / "boot/vmlinuz", directory / "vmlinuz")
    made = Machine(str(uuid.uuid4()), directory)
    (directory / "domain.xml").write_text(
        f"""<domain type='qemu'><name>{NAME}-liar-{os.getpid()}</name><uuid>{made.id}</uuid>
        <memory unit='MiB'>192</memory><os><type arch='x86_64'>hvm</type><kernel>{directory}/vmlinuz</kernel>
        <initrd>{directory}/initrd</initrd><cmdline>quiet</cmdline></os><devices>
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
    )
    try:
        virsh("create", str(directory / "domain.xml"))
        end = time.monotonic() + 120
        while "state='connected'" not in virsh("dumpxml", made.id):
            assert time.monotonic() < end, "the guest's agent has not come up"
            time.sleep(0.5)
        yield made
    finally:
        subprocess.run(["virsh", "-q", "-c", URI, "destroy", made.id], check=False, capture_output=True)
        shutil.rmtree(directory)


def ask(liar: Machine, case: Path) -> dict[str, Any]:
    case.mkdir()
    told = run("vm_guest_run", arguments(liar, case, collect=["processes"], deadline=8))
    assert not told.get("failed"), told
    return told


def unheard(told: dict[str, Any], reason: str, case: Path) -> None:
    assert told["available"] is False
    assert reason in told["evidence"]["connections"]["reason"]
    assert stored(case) == []


@pytest.mark.parametrize("liar", ["hang"], indirect=True)
def test_an_agent_that_hangs_is_bounded_and_told(liar: Machine, tmp_path: Path) -> None:
    unheard(ask(liar, tmp_path / "hang"), "agent", tmp_path / "hang")
    assert liar.power == "running"


@pytest.mark.slow
@pytest.mark.parametrize("liar", ["good lie endless flood"], indirect=True)
def test_an_agent_that_lies_stalls_or_floods_is_bounded_and_told(liar: Machine, tmp_path: Path) -> None:
    good = ask(liar, tmp_path / "good")
    assert good["available"] is True, good["msg"]
    assert good["claims"]["processes"]["stdout"] == "hello"
    assert good["artefacts"][0]["claimed_by_guest"] is True
    for name, reason in (("lie", "not base64"), ("endless", "not finished"), ("flood", "agent")):
        unheard(ask(liar, tmp_path / name), reason, tmp_path / name)
    assert liar.power == "running"
