# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No module, action, role or playbook learns a hypervisor's name: the backends alone know them.

Looked at is what runs: documentation, docstrings and comments may name whom they like.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NAMES = re.compile(r"libvirt|virsh|kvm|vsphere|vmware|vcenter|esxi|proxmox|pve|vzdump", re.IGNORECASE)
DOCUMENTATION = {"DOCUMENTATION", "EXAMPLES", "RETURN"}
CODE = ("plugins/modules/*.py", "plugins/action/*.py", "plugins/plugin_utils/*.py", "plugins/filter/*.py")
TASKS = ("roles/*/tasks/*.yml", "roles/*/vars/*.yml", "roles/*/handlers/*.yml", "playbooks/*.yml")

# What may be named all the same, and why: by the begin of "file: line".
LAB = "the lab is made of one hypervisor on this machine; no response uses the role"
ALLOWED = {
    "roles/lab/": LAB,
    "playbooks/lab_up.yml": LAB,
    "playbooks/lab_down.yml": LAB,
    "roles/contain/tasks/prove.yml: name: Read the taps on each KVM host": (
        "a step's title; which hosts it runs on is the plan's to say, and is none where nothing can be counted"
    ),
}


def statements(source: str) -> ast.Module:
    """The code without documentation and docstrings."""
    tree = ast.parse(source)
    tree.body = [
        one
        for one in tree.body
        if not (isinstance(one, ast.Assign) and {getattr(name, "id", "") for name in one.targets} & DOCUMENTATION)
    ]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            node.body = [one for one in node.body if not is_text(one)] or [ast.Pass()]
    return tree


def is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def running(path: Path) -> str:
    """What of a file runs, one thing a line."""
    text = path.read_text()
    if path.suffix == ".py":
        return ast.unparse(statements(text))
    return yaml.safe_dump(yaml.safe_load(text), width=10**6, allow_unicode=True)


def named(root: Path) -> Iterator[str]:
    """Every place that names one, as ``file: line``."""
    for pattern in CODE + TASKS:
        for path in sorted(root.glob(pattern)):
            where = path.relative_to(root).as_posix()
            for line in running(path).splitlines():
                if NAMES.search(line):
                    yield f"{where}: {line.strip()}"


def allowed(place: str) -> bool:
    return any(place.startswith(known) for known in ALLOWED)


def test_none_is_named_where_all_are_served() -> None:
    wrong = [place for place in named(ROOT) if not allowed(place)]
    assert wrong == [], "ask the contract (_hypervisor.py: a capability) in place of a name"


def test_what_is_allowed_is_still_there() -> None:
    places = list(named(ROOT))
    assert [known for known in ALLOWED if not any(place.startswith(known) for place in places)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("plugins/modules/vm_x.py", "if entry == 'libvirt':\n    pass\n"),
        ("plugins/modules/vm_x.py", "from .._proxmox import api\n"),
        ("plugins/action/vm_x.py", "def is_vsphere():\n    return True\n"),
        ("roles/contain/tasks/x.yml", "- name: Cut\n  when: kind == 'pve'\n"),
        ("roles/scan/vars/main.yml", "__scan_kvm: true\n"),
        ("playbooks/x.yml", "- hosts: vmware_hosts\n"),
    ],
)
def test_each_place_is_looked_at(tmp_path: Path, path: str, text: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    assert [place.startswith(path) for place in named(tmp_path)] == [True]


def test_words_are_free(tmp_path: Path) -> None:
    (tmp_path / "plugins/modules").mkdir(parents=True)
    (tmp_path / "plugins/modules/vm_x.py").write_text(
        '"""On libvirt."""\nDOCUMENTATION = "vSphere"\nEXAMPLES = "pve"\n\n\ndef f():\n    """KVM."""  # libvirt\n'
    )
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks/x.yml").write_text("# KVM hosts\n- hosts: all\n")
    assert list(named(tmp_path)) == []
