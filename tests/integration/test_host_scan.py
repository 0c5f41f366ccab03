# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A live host through the module and the playbook: small trees of files of this host."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.tests.corpus import clam, disks
from ansible_collections.vmward.remediation.tests.corpus.scanning import ROOT, RULES_DIRECTORY, module


def scan(*paths: Path | str, temporary: Path | None = None, **options: Any) -> dict[str, Any]:
    arguments = {"paths": [str(path) for path in paths], "rules": [RULES_DIRECTORY], **options}
    return module("host_scan", {"TMPDIR": str(temporary)} if temporary else None, **arguments)


def found(result: dict[str, Any], kind: str = "findings") -> list[str]:
    return sorted(one["path"] for one in result[kind])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return Path(disks.tree(tmp_path / "tree", disks.harmless()))


def test_a_clean_tree_is_clean_and_says_what_that_does_not_prove(tree: Path) -> None:
    result = scan(tree)
    assert (result["verdict"], result["incomplete_reasons"], result["findings"]) == ("clean", [], [])
    assert result["files"] == len(disks.harmless())
    assert any("rootkit" in note for note in result["coverage_notes"])
    assert [volume["read"] for volume in result["volumes"]] == [True]


def test_a_private_file_is_read_and_found(tree: Path) -> None:
    secret = tree / "root" / "private"
    secret.mkdir(parents=True, mode=0o700)
    (secret / "evil.com").write_bytes(disks.EICAR)
    (secret / "evil.com").chmod(0)
    (tree / "hint.service").write_bytes(b"[Service]\nExecStart=/dev/shm/.x/agent\n")
    result = scan(tree)
    assert result["verdict"] == "infected"
    assert found(result) == [str(secret / "evil.com")]
    assert found(result, "indicators") == [str(tree / "hint.service")]
    assert result["findings"][0]["sha256"].startswith("275a021b")


def test_links_pipes_and_circles_lead_nowhere(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "evil.com").write_bytes(disks.EICAR)
    (tree / "directory").symlink_to(tmp_path / "elsewhere")
    (tree / "file").symlink_to(tmp_path / "elsewhere" / "evil.com")
    (tree / "circle").symlink_to(tree)
    os.mkfifo(tree / "pipe")
    os.link(tree / "etc/hostname", tree / "same")
    result = scan(tree)
    assert (result["verdict"], result["findings"]) == ("clean", [])
    assert result["files"] == len(disks.harmless()) + 1


@pytest.mark.parametrize("name", [b"\x1b[2J\x07evil", b"line\nbreak", b"\xff\xfe"])
def test_a_name_cannot_leave_its_line(tree: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(disks.EICAR)
    (path,) = found(scan(tree))
    assert path.isprintable()


def test_what_is_left_out_is_told(tree: Path) -> None:
    (tree / "out").mkdir()
    (tree / "out" / "evil.com").write_bytes(disks.EICAR)
    result = scan(tree, exclude=[str(tree / "out")])
    assert result["verdict"] == "clean"
    assert f"{tree / 'out'} was left out." in result["coverage_notes"]


def test_what_is_not_read_is_never_clean(tree: Path) -> None:
    assert scan(tree / "nothing")["verdict"] == "incomplete"
    nothing = scan("/proc")
    assert (nothing["verdict"], nothing["volumes"]) == ("incomplete", [])
    assert scan(tree, rules=[])["verdict"] == "incomplete"
    assert scan(tree, max_file_size=1000)["verdict"] == "incomplete"
    with (tree / "sparse").open("wb") as file:
        file.truncate(50 << 30)
        file.seek(30 << 30)
        file.write(disks.MARKER)
    sparse = scan(tree)
    assert sparse["verdict"] == "infected"
    assert sparse["findings"][0]["offset"] == 30 << 30
    assert "in parts only" in " ".join(sparse["incomplete_reasons"])


def test_its_own_sample_infects_nobody_by_another_path(tree: Path, tmp_path: Path) -> None:
    (tree / "temporary").mkdir()
    (tmp_path / "link").symlink_to(tree / "temporary")
    result = scan(tree, temporary=tmp_path / "link")
    assert (result["verdict"], result["findings"]) == ("clean", [])


def test_the_sample_of_another_scan_infects_nobody(tree: Path, tmp_path: Path) -> None:
    """One that runs at the same time, or that was killed before it could remove it."""
    (tree / "temporary").mkdir()
    asked = {"paths": [str(tree)], "rules": [RULES_DIRECTORY], "clamd_socket": str(tmp_path / "socket")}
    command = [sys.executable, str(ROOT / "plugins/modules/host_scan.py"), json.dumps({"ANSIBLE_MODULE_ARGS": asked})]
    changed = {"PYTHONPATH": str(ROOT / "build/collections"), "TMPDIR": str(tree / "temporary")}
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "socket"))
        door.listen(1)
        with subprocess.Popen(command, env={**os.environ, **changed}, stdout=subprocess.PIPE) as other:
            link, _address = door.accept()  # an engine that answers nobody: it waits with its sample planted
            (sample,) = tree.glob("temporary/*/sample")
            result = scan(tree)
            other.kill()
            link.close()
    assert sample.exists(), "it was there all the time"
    assert (result["verdict"], result["findings"]) == ("clean", [])


def test_known_contents_are_not_judged_twice(tree: Path, tmp_path: Path) -> None:
    known = str(tmp_path / "known")
    first, second = scan(tree, index_directory=known), scan(tree, index_directory=known)
    assert (first["verdict"], second["verdict"]) == ("clean", "clean")
    assert (first["bytes_read"] > 0, second["bytes_read"]) == (True, 0)


def test_check_mode_uses_what_is_known_and_keeps_nothing(tree: Path, tmp_path: Path) -> None:
    known = tmp_path / "known"
    first = scan(tree, index_directory=str(known), _ansible_check_mode=True)
    assert (first["verdict"], known.exists()) == ("clean", False)
    scan(tree, index_directory=str(known))
    (tree / "new").write_bytes(b"new")
    before = {path.name: path.read_bytes() for path in known.iterdir()}
    second = scan(tree, index_directory=str(known), _ansible_check_mode=True)
    assert (second["verdict"], second["bytes_read"]) == ("clean", 3)
    assert {path.name: path.read_bytes() for path in known.iterdir()} == before


def test_indicators_and_clamd_judge_too(tree: Path, tmp_path: Path) -> None:
    if not shutil.which("clamd"):
        pytest.skip("clamd is not installed")
    (tree / "evil.com").write_bytes(disks.EICAR)
    notice = tmp_path / "notice.yml"
    notice.write_text(f"names: [hostname]\npaths: [{tree}/empty]\n")
    with clam.daemon() as path:
        result = scan(tree, clamd_socket=path, engines_required=["yara", "clamd"], indicators=[str(notice)])
    assert {(one["engine"], Path(one["path"]).name) for one in result["findings"]} == {
        ("yara", "evil.com"),
        ("clamd", "evil.com"),
        ("ioc", "hostname"),
        ("ioc", "empty"),
    }


def playbook_command(*arguments: str) -> list[str]:
    command = [str(Path(sys.executable).parent / "ansible-playbook"), "vmward.remediation.scan_hosts"]
    return [*command, "-i", "lan1,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}", *arguments]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "ANSIBLE_NOCOLOR": "1", **changes}


def playbook(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        playbook_command(*arguments),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=environment(**changes),
    )


def test_the_playbook_fails_the_hosts_that_are_not_clean(tree: Path, tmp_path: Path) -> None:
    settings = {
        "scan_host_paths": [str(tree)],
        "scan_rules_directory": str(tmp_path / "rules"),
        "scan_index_directory": "",
    }
    arguments = ("-e", "vmward_hosts=all", "-e", json.dumps(settings))
    clean = playbook(*arguments)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    for number in range(23):
        (tree / f"evil{number}.com").write_bytes(disks.EICAR)
    infected = playbook(*arguments)
    assert infected.returncode == 2
    told = infected.stdout.replace("\n", "").replace(" ", "")
    assert told.count(str(tree / "evil")) == 20
    assert "and3more" in told


def entries(store: Path, case: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (store / case / "ledger.jsonl").read_text().splitlines()]
    return [line for line in lines if line["phase"] == "scan"]


def test_a_case_keeps_what_was_said_of_every_host(tree: Path, tmp_path: Path) -> None:
    """Of one that is infected, and of one that does not answer."""
    inventory, store = tmp_path / "inventory", tmp_path / "store"
    inventory.write_text(
        "lan1 ansible_connection=local\ngone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n"
    )
    settings = {
        "scan_host_paths": [str(tree)],
        "scan_rules_directory": str(tmp_path / "rules"),
        "vmward_case": "2026-0007",
        "vmward_case_store": str(store),
        "vmward_actor": "ada@ir1",
    }
    arguments = ("-i", str(inventory), "-e", json.dumps(settings))
    clean = playbook("-e", "vmward_hosts=lan1", *arguments)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    (entry,) = entries(store, "2026-0007")
    assert (entry["action"], entry["target"], entry["actor"]) == ("host", "lan1", "ada@ir1")
    assert (entry["result"]["state"], entry["result"]["verdict"]) == ("done", "clean")
    assert entry["inputs"]["paths"] == [str(tree)]

    (tree / "evil.com").write_bytes(disks.EICAR)
    infected = playbook("-e", "vmward_hosts=all", *arguments)
    assert infected.returncode == 2, infected.stdout + infected.stderr
    told = {entry["target"]: entry["result"] for entry in entries(store, "2026-0007")}
    assert (told["lan1"]["state"], told["lan1"]["verdict"]) == ("done", "infected")
    assert [finding["path"] for finding in told["lan1"]["findings"]] == [str(tree / "evil.com")]
    assert told["gone"]["state"] == "failed"
    assert "Cannot reach gone, whose files are to be read" in told["gone"]["msg"]
    assert "gone was not scanned" in infected.stdout.replace("\n", " ")

    broken = playbook("-e", "vmward_hosts=lan1", *arguments, "-e", json.dumps({"scan_rules": ["/nowhere/rules.yar"]}))
    assert broken.returncode == 2
    last = entries(store, "2026-0007")[-1]["result"]
    assert last["state"] == "failed"
    assert "/nowhere/rules.yar" in last["msg"]


def test_hosts_that_want_the_rules_in_one_place_at_once_all_get_them(tmp_path: Path) -> None:
    """As the VMs of a batch do on their data host, in the first run of all."""
    bait, inventory = tmp_path / "tree" / "file", tmp_path / "inventory"
    bait.parent.mkdir()
    bait.write_bytes(b"harmless")
    inventory.write_text("".join(f"lan{number} ansible_connection=local\n" for number in range(8)))
    settings = {"scan_host_paths": [str(bait.parent)], "scan_rules_directory": str(tmp_path / "new" / "rules")}
    told = playbook("-i", str(inventory), "-f", "8", "-e", "vmward_hosts=all", "-e", json.dumps(settings))
    assert told.returncode == 0, told.stdout + told.stderr


def in_case(tree: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "scan_host_paths": [str(tree)],
        "scan_rules_directory": str(tmp_path / "rules"),
        "scan_index_directory": "",
        "vmward_case": "2026-0008",
        "vmward_case_store": str(tmp_path / "place" / "store"),
    }


def test_hosts_are_scanned_while_the_store_takes_nothing(tree: Path, tmp_path: Path) -> None:
    arguments = ("-e", "vmward_hosts=all", "-e", json.dumps(in_case(tree, tmp_path)))
    (tmp_path / "place").write_text("no directory")
    down = playbook(*arguments, HOME=str(tmp_path))
    assert down.returncode == 0, down.stdout + down.stderr
    assert "they wait in" in down.stdout + down.stderr
    (tmp_path / "place").unlink()
    (tmp_path / "place").mkdir()
    up = playbook(*arguments, HOME=str(tmp_path))
    assert up.returncode == 0, up.stdout + up.stderr
    kept = entries(tmp_path / "place" / "store", "2026-0008")
    assert [entry["result"]["verdict"] for entry in kept] == ["clean", "clean"]


def test_no_name_and_no_set_of_rules_keeps_a_verdict_out_of_the_case(tree: Path, tmp_path: Path) -> None:
    deep = tree.joinpath(*["\u8abf\u67fb\u5831\u544a" * 20] * 6)
    deep.mkdir(parents=True)
    for number in range(30):
        (deep / f"{number}.com").write_bytes(disks.EICAR)
    (tmp_path / "place").mkdir()
    (tmp_path / "many").mkdir()
    for number in range(400):
        text = f"rule r{number} {{ condition: false }}\n"
        (tmp_path / "many" / f"a_public_rule_with_a_usual_name_{number:03}.yar").write_text(text)
    settings = {**in_case(tree, tmp_path), "scan_rules": [str(tmp_path / "many")], "scan_builtin_rules": ["inert.yar"]}
    done = playbook("-e", "vmward_hosts=all", "-e", json.dumps(settings), HOME=str(tmp_path))
    assert done.returncode == 2
    (entry,) = entries(tmp_path / "place" / "store", "2026-0008")
    told = entry["result"]
    assert (told["verdict"], told["findings_count"]) == ("infected", 30)
    assert 0 < len(told["findings"]) < 25
    (engine,) = told["engines"]
    assert engine["rules"]["files"] == 401
    listed = [str(tmp_path / "rules" / "inert.yar"), *map(str, (tmp_path / "many").iterdir())]
    lines = sorted(f"{hashlib.sha256(Path(name).read_bytes()).hexdigest()}  {name}\n" for name in listed)
    assert engine["rules"]["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_verdict_that_the_ledger_refuses_is_printed(tree: Path, tmp_path: Path) -> None:
    (tree / "evil.com").write_bytes(disks.EICAR)
    (tmp_path / "place").mkdir()
    without = [f"/nowhere/{number:0200}" for number in range(400)]
    (tmp_path / "settings").write_text(json.dumps({**in_case(tree, tmp_path), "scan_host_exclude": without}))
    done = playbook("-e", "vmward_hosts=all", "-e", f"@{tmp_path}/settings", HOME=str(tmp_path))
    assert done.returncode == 2
    told = done.stdout.replace("\n", "").replace(" ", "")
    assert "thelimitis65536" in told
    assert str(tree / "evil.com") in told
    assert entries(tmp_path / "place" / "store", "2026-0008") == []


LOST = """
DOCUMENTATION = "name: lost\\nshort_description: Lost once its scan has begun\\ndescription: [As it says.]"
import os
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

class Connection(Local):
    transport = "lost"

    def exec_command(self, cmd, in_data=None, sudoable=True):
        if os.path.exists(os.environ["LOST"]):
            raise AnsibleConnectionFailure("The line is dead.")
        if "AnsiballZ_host_scan" in cmd and "chmod" not in cmd:
            open(os.environ["LOST"], "w").close()
        return super().exec_command(cmd, in_data, sudoable)
"""


def test_a_host_that_is_lost_in_the_middle_of_its_scan_is_recorded(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "lost.py").write_text(LOST)
    (tmp_path / "inventory").write_text("lan2 ansible_connection=lost\n")
    arguments = ("-i", str(tmp_path / "inventory"), "-e", json.dumps(in_case(tree, tmp_path)))
    lost = {
        "ANSIBLE_CONNECTION_PLUGINS": str(tmp_path),
        "LOST": str(tmp_path / "gone"),
        "HOME": str(tmp_path),
        "ANSIBLE_ASYNC_DIR": str(tmp_path),
    }
    done = playbook("-e", "vmward_hosts=lan2", *arguments, **lost)
    assert done.returncode == 2, done.stdout + done.stderr
    assert (tmp_path / "gone").exists()
    (entry,) = entries(tmp_path / "place" / "store", "2026-0008")
    assert (entry["target"], entry["result"]["state"]) == ("lan2", "failed")
    assert "The line is dead." in entry["result"]["msg"]


def test_the_playbook_refuses_a_name_that_matches_nothing() -> None:
    done = playbook("-e", "vmward_hosts=nowhere")
    assert done.returncode != 0
    assert "matches no host" in done.stdout + done.stderr
    assert playbook().returncode != 0
    assert playbook("-e", "vmward_hosts=lan1,nowhere").returncode != 0


def test_a_name_is_refused_in_a_sentence_where_only_some_of_a_vm_is_told(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"admin1": {"vmward_macs": []}}}}))
    done = playbook("-i", str(inventory), "-e", "vmward_hosts=nowhere")
    assert done.returncode != 0
    assert "'nowhere' matches no host of the inventory. Nothing was touched. Name" in " ".join(done.stdout.split())


@pytest.mark.parametrize("way", ["from", "through", "named"])
def test_no_scan_starts_on_or_leads_through_a_vm_that_is_held(tree: Path, tmp_path: Path, way: str) -> None:
    own = Path("/sys/class/net", os.listdir("/sys/class/net")[0], "address").read_text().strip()
    state = "free" if way == "named" else "sealed"
    admin = {"vmward_macs": [own] if way != "through" else [], "vmward_isolation": state}
    lan = {"ansible_connection": "local", **({"ansible_ssh_common_args": "-J admin1"} if way == "through" else {})}
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"lan1": lan, "admin1": admin}}}))
    named = ["-e", "vmward_vms=admin1"] if way == "named" else []
    settings = in_case(tree, tmp_path)
    arguments = ("-i", str(inventory), "-e", "vmward_hosts=lan1", "-e", json.dumps(settings), *named)
    done = playbook(*arguments, HOME=str(tmp_path))
    said = " ".join(done.stdout.split())
    assert done.returncode == 2, said
    assert "the VM admin1, which is " in said
    assert "Nothing was touched." in said
    assert not (tmp_path / "rules").exists()
    assert not (tmp_path / "place").exists()


def silent_engine(path: Path) -> tuple[socket.socket, list[socket.socket]]:
    """A clamd that answers nobody: a scan that asks it waits. The list is of those who ask."""
    door, asking = socket.socket(socket.AF_UNIX), list[socket.socket]()
    door.bind(str(path))
    door.listen(1)
    threading.Thread(target=lambda: asking.append(door.accept()[0]), daemon=True).start()
    return door, asking


def test_a_scan_yields_to_others_and_prints_its_progress(tree: Path, tmp_path: Path) -> None:
    """Seen from outside, while it waits for an engine."""
    door, asking = silent_engine(tmp_path / "socket")
    settings = {**in_case(tree, tmp_path), "vmward_case": "", "scan_clamd_socket": str(tmp_path / "socket")}
    command = playbook_command("-e", "vmward_hosts=lan1", "-e", json.dumps(settings))
    with door, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment()) as running:
        assert running.stdout is not None
        told = next((line for line in running.stdout if "0 files, 0 MB read" in line), "")
        assert "lan1" in told, "no progress was printed while it went on"
        pid = struct.unpack("3i", asking[0].getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        yields = os.getpriority(os.PRIO_PROCESS, pid), disks.run("ionice", "-p", str(pid)).strip()
        os.kill(pid, signal.SIGKILL)
        running.communicate()
    assert yields == (min(19, os.getpriority(os.PRIO_PROCESS, 0) + 10), "idle")
