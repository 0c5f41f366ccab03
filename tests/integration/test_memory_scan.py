# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory as QEMU writes it, through the module."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.tests.corpus.disks import MARKER, MB
from ansible_collections.vmward.remediation.tests.corpus.scanning import RULES_DIRECTORY, module

SIZE = 24 * MB


def scan(path: Path, **options: Any) -> dict[str, Any]:
    return module("memory_scan", **{"path": str(path), "rules": [RULES_DIRECTORY], **options})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The memory of a machine that never ran: with samples across the 16th MiB and at its very end; and without."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86_64 is not installed")
    place = tmp_path_factory.mktemp("memory")
    (place / "sample").write_bytes(MARKER)
    loaders = [f"loader,file={place / 'sample'},force-raw=on,addr={at}" for at in (16 * MB - 7, SIZE - len(MARKER))]
    names = {"elf": place / "memory.elf", "qemu-state": place / "memory.qemu-state", "clean": place / "clean.elf"}
    run_qemu([f"dump-guest-memory {names['elf']}", f'migrate "exec:cat > {names["qemu-state"]}"'], loaders)
    run_qemu([f"dump-guest-memory {names['clean']}"], [])
    return names


def run_qemu(commands: list[str], devices: list[str]) -> None:
    command = ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-S", "-display", "none", "-nodefaults"]
    command += ["-m", f"{SIZE // MB}M", "-monitor", "stdio", *(word for one in devices for word in ("-device", one))]
    subprocess.run(command, input="\n".join([*commands, "quit", ""]), text=True, check=True, capture_output=True)


def test_a_core_of_qemu_is_read_and_the_samples_found_at_their_addresses(saved: dict[str, Path]) -> None:
    result = scan(saved["elf"])
    assert result["verdict"] == "incomplete"
    starts = {volume["index"]: volume["start"] for volume in result["volumes"]}
    assert [(starts[hit["volume"]] + hit["offset"], hit["rule"]) for hit in result["indicators"]] == [
        (16 * MB - 7, "vmward_inert_sample"),
        (SIZE - len(MARKER), "vmward_inert_sample"),
    ]
    assert all(volume["read"] for volume in result["volumes"])
    assert result["bytes_read"] >= SIZE
    assert [engine["name"] for engine in result["engines"]] == ["yara"]


def test_indicators_of_files_are_told_not_to_be_looked_for(tmp_path: Path) -> None:
    memory, listed = tmp_path / "memory.raw", tmp_path / "indicators.yml"
    memory.write_bytes(b"evil.exe" + bytes(MB))
    for text, is_told in (("names: [evil.exe]", True), ("paths: [/evil.exe]", True), ("ips: [203.0.113.9]", False)):
        listed.write_text(text)
        result = scan(memory, format="raw", indicators=[str(listed)])
        assert result["verdict"] == "clean"
        assert ("some indicators of compromise were not looked for" in result["msg"]) == is_told


def test_memory_without_a_match_is_clean(saved: dict[str, Path]) -> None:
    result = scan(saved["clean"])
    assert (result["verdict"], result["incomplete_reasons"], result["findings"]) == ("clean", [], [])


def test_a_state_saved_by_qemu_is_matched(saved: dict[str, Path]) -> None:
    result = scan(saved["qemu-state"], format="qemu-state")
    # The first sample lies across two pages, and the state holds pages apart.
    assert [hit["rule"] for hit in result["indicators"]] == ["vmward_inert_sample"]
    assert result["volumes"][0]["read"]


def test_what_cannot_be_read_is_never_clean(saved: dict[str, Path], tmp_path: Path) -> None:
    short = Path(shutil.copy(saved["clean"], tmp_path / "short.elf"))
    os.truncate(short, 3 * MB)
    cut = scan(short)
    assert cut["verdict"] == "incomplete"
    assert "missing in the file" in cut["incomplete_reasons"][0]
    assert "does not begin as a state" in scan(saved["clean"], format="qemu-state")["incomplete_reasons"][0]
    assert scan(saved["clean"], rules=[])["verdict"] == "incomplete"
    assert scan(saved["clean"], deadline=1, cpu_limit=1, rules=[slow(tmp_path)])["verdict"] == "incomplete"


def slow(place: Path) -> str:
    rules = place / "slow.yar"
    rules.write_text("rule slow { condition: for any i in (0..900000000000) : (uint8(i % filesize) == 300) }")
    return str(rules)


def test_bad_input_is_refused(saved: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "link.elf"
    link.symlink_to(saved["clean"])
    assert "it is a symbolic link" in scan(link)["msg"]
    assert "there is none" in scan(tmp_path / "none")["msg"]
    assert "limit below 1" in scan(saved["clean"], deadline=0)["msg"]
