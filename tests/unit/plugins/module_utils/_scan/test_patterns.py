# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which paths a pattern names, and which directories lead there."""

from __future__ import annotations

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._scan.patterns import BadPattern, Patterns


def parts(path: str) -> tuple[str, ...]:
    return tuple(path.strip("/").split("/"))


@pytest.mark.parametrize(
    ("pattern", "path", "wanted"),
    [
        ("/var/log/**", "/var/log/syslog", True),
        ("/var/log/**", "/var/log/a/b/c", True),
        ("/var/log/**", "/var/log", False),
        ("/var/log/**", "/var/logs/syslog", False),
        ("/var/log/**", "/srv/var/log/syslog", False),
        ("/home/*/.*_history", "/home/ada/.bash_history", True),
        ("/home/*/.*_history", "/home/ada/x/.bash_history", False),
        ("/home/*/.*_history", "/home/.bash_history", False),
        ("/a/[bc]?", "/a/b1", True),
        ("/a/[bc]?", "/a/d1", False),
        ("/a/*", "/a/line\nbreak", True),
        ("/Windows/Logs/**", "/windows/LOGS/a.evtx", False),
    ],
)
def test_what_is_wanted(pattern: str, path: str, wanted: bool) -> None:
    assert Patterns([pattern]).wants(parts(path)) is wanted


def test_letter_case_may_not_count() -> None:
    assert Patterns(["/Windows/Logs/**"], fold=True).wants(parts("/windows/LOGS/a.evtx"))


def test_only_directories_on_the_way_are_entered() -> None:
    patterns = Patterns(["/var/log/**", "/home/*/.*_history"])
    entered = ["/var", "/var/log", "/var/log/a/b", "/home", "/home/ada"]
    assert all(patterns.enters(parts(path)) for path in entered)
    others = ["/usr", "/var/lib", "/home/ada/.bash_history", "/home/a/b"]
    assert not any(patterns.enters(parts(path)) for path in others)


def test_a_link_matters_where_a_pattern_names_the_directory() -> None:
    patterns = Patterns(["/var/log/**", "/*/.*_history"])
    assert all(patterns.leads(parts(path)) for path in ("/var", "/var/log"))
    assert not any(patterns.leads(parts(path)) for path in ("/bin", "/var/log/README"))


@pytest.mark.parametrize("text", ["var/log/**", "/", "/**", "/var/**/x", "/var/../etc/*", "/var//log/*", "", "/a**/b"])
def test_what_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(BadPattern, match="Cannot use the pattern"):
        Patterns([text])
