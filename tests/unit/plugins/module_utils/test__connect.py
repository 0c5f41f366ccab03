# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An entry of vmward_hypervisors is judged before anything is connected to."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.vmward.remediation.plugins.module_utils._connect import (
    BadEntry,
    chosen_names,
    connect,
    secrets_of,
    validate_entry,
    warnings_of,
)
from ansible_collections.vmward.remediation.plugins.module_utils._errors import NotFound, TaskFailed

LOG_IN = {"username": "ir", "password": "s3cret"}


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({}, "must have exactly one key, its kind (fake, libvirt, "),
        ("qemu:///system", "must have exactly one key"),
        ({"libvirt": {"uri": "x"}, "fake": {"path": "y"}}, "must have exactly one key"),
        ({"xen": {}}, "of the unknown kind"),
        ({"libvirt": {}}, "missing required arguments: uri"),
        ({"libvirt": {"uri": "x", "colour": "red"}}, "no option colour; its options are connect_timeout, data_host, "),
        ({"libvirt": "qemu:///system"}, "write the options of libvirt as a mapping, "),
        ({"libvirt": [{"uri": "x"}]}, "write the options of libvirt as a mapping, "),
        (
            {"vsphere": {**LOG_IN, "hostname": "https://vc1/sdk"}},
            "hostname is the name or address alone, without https://",
        ),
        ({"proxmox": {"host": "https://pve1:8006"}}, "host is the name or address alone, without https://"),
        ({"vsphere": {"hostname": "vc1", "username": "ir"}}, "missing required arguments: password"),
    ],
)
def test_a_bad_entry_is_named_with_what_is_wrong(entry: Any, sentence: str) -> None:
    with pytest.raises(BadEntry, match="Hypervisor kvm1") as told:
        connect("kvm1", entry)
    assert sentence in str(told.value)


def test_the_choice_is_checked() -> None:
    assert chosen_names({"a": {}, "b": {}}, []) == ["a", "b"]
    assert chosen_names({"a": {}, "b": {}}, ["b"]) == ["b"]
    with pytest.raises(NotFound, match="Unknown hypervisor c; configured: a, b"):
        chosen_names({"b": {}, "a": {}}, ["c"])
    with pytest.raises(BadEntry, match="No hypervisor is configured"):
        chosen_names({}, [])


def test_a_missing_state_file_is_told_as_a_sentence() -> None:
    with pytest.raises(TaskFailed, match="Cannot read the simulated hypervisor's state"):
        connect("fake1", {"fake": {"path": "/nonexistent/state.json"}})


VC1 = {"vsphere": {"hostname": "vc1", "username": "ir", "password": "s3cret"}}


def test_secrets_are_known_wherever_they_stand() -> None:
    assert secrets_of({"vc1": VC1, "kvm1": {"libvirt": {"uri": "x"}}}) == {"s3cret"}
    assert secrets_of(None) == secrets_of({"vc1": None}) == secrets_of({"vc1": {"vsphere": {}}}) == set()


@pytest.mark.parametrize(
    "entries",
    [
        "vc1: {vsphere: {password: s3cret}}",
        {"vc1": "s3cret"},
        {"vc1": {"vsphere": "s3cret"}},
        {"vc1": {"xen": {"password": "s3cret"}}},
        {"vc1": {"Vsphere": {"hostname": "vc1", "password": "s3cret"}}},
        {"vc1": {"vsphere": {"hostname": "vc1", "pasword": "s3cret"}}},
        {"vc1": {"hostname": "vc1", "password": "s3cret"}},
        {"vsphere": {"hostname": "vc1", "password": "s3cret"}},
        {"vc1": [{"vsphere": {"hostname": "vc1", "password": "s3cret"}}]},
        {"vc1": {"vsphere": {"password": ["s3cret"]}}},
    ],
)
def test_a_secret_in_an_entry_that_is_not_well_formed_is_hidden_too(entries: Any) -> None:
    (hidden,) = secrets_of(entries)
    assert "s3cret" in hidden


def test_what_is_too_short_for_a_secret_hides_no_sentence() -> None:
    """A value that is hidden is taken out of every message, also out of the middle of a word."""
    assert secrets_of({"vc1": {"vsphere": {"validate_cert": "no", "prot": 443, "guest": False}}}) == set()


def test_a_secret_with_a_line_end_is_hidden_without_it_too() -> None:
    assert secrets_of({"vc1": {"vsphere": {"password": "s3cret\n"}}}) == {"s3cret\n", "s3cret"}
    assert secrets_of({"vc1": {"vsphere": {"password": "\n"}}}) == {"\n"}, "an empty one would hide everything"


def test_a_password_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMWARD_VSPHERE_PASSWORD", "from outside")
    options = validate_entry("vc1", {"vsphere": {"hostname": "vc1", "username": "ir"}})
    assert (options["password"], options["port"], options["validate_certs"]) == ("from outside", 443, True)


def test_an_unchecked_certificate_is_warned_of() -> None:
    unsafe = {"vsphere": dict(VC1["vsphere"], validate_certs=False)}
    assert warnings_of({"vc1": VC1}) == []
    (warning,) = warnings_of({"vc1": VC1, "vc2": unsafe})
    assert warning.startswith("The certificate of vc2 is not checked")
    assert warnings_of({"vc1": VC1, "vc2": unsafe}, ["vc1"]) == []
