# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an entry of ``vmward_hypervisors`` to a connected Hypervisor. A backend is imported only when it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ._argspec import BACKENDS
from ._errors import NotFound, VmwardError
from ._hypervisor import Hypervisor

OPTIONS = [(name, option) for spec in BACKENDS.values() for name, option in spec.items()]
SECRET = {name for name, option in OPTIONS if option.get("no_log")}
PLAIN = {name for name, _option in OPTIONS} - SECRET
SHORTEST = 4  # characters of a value that is hidden although it may be none: a shorter one would hide every sentence


class BadEntry(VmwardError):
    """An entry of the hypervisors option is not well formed."""


def chosen_names(entries: Mapping[str, Any], only: Sequence[str]) -> list[str]:
    """The hypervisors to use: all of them, or those that ``only`` names."""
    if not entries:
        raise BadEntry(
            "No hypervisor is configured. Set vmward_hypervisors, for example {kvm1: {libvirt: {uri: 'qemu:///system'}}}."
        )
    unknown = sorted(set(only) - set(entries))
    if unknown:
        raise NotFound("Unknown hypervisor {}; configured: {}.".format(", ".join(unknown), ", ".join(sorted(entries))))
    return [name for name in entries if not only or name in only]


def validate_entry(name: str, entry: Any) -> dict[str, Any]:
    """Check one entry; answers its options with defaults filled in, and the backend under ``backend``."""
    known = ", ".join(sorted(BACKENDS))
    if not isinstance(entry, dict) or len(entry) != 1:
        raise BadEntry(f"Hypervisor {name} must have exactly one key, its kind ({known}).")
    ((backend, options),) = entry.items()
    if backend not in BACKENDS:
        raise BadEntry(f"Hypervisor {name} is of the unknown kind {backend!r}; known kinds: {known}.")
    if options is not None and not isinstance(options, Mapping):
        raise BadEntry(f"Hypervisor {name}: write the options of {backend} as a mapping, {{{backend}: {{...}}}}.")
    strange = sorted(str(key) for key in set(options or {}) - set(BACKENDS[backend]))
    if strange:
        its = ", ".join(sorted(BACKENDS[backend]))
        raise BadEntry(f"Hypervisor {name} ({backend}) has no option {', '.join(strange)}; its options are {its}.")
    result = ArgumentSpecValidator(BACKENDS[backend]).validate(options or {})
    if result.error_messages:
        raise BadEntry("Hypervisor {} ({}): {}.".format(name, backend, "; ".join(result.error_messages)))
    for option in ("hostname", "host"):
        if "/" in str(result.validated_parameters.get(option) or ""):
            raise BadEntry(
                f"Hypervisor {name} ({backend}): {option} is the name or address alone, without https:// and path."
            )
    return dict(result.validated_parameters, backend=backend)


def secrets_of(entries: Any) -> set[str]:
    """Every secret in the entries, so that no output and no log shows it.

    In an entry that is not well formed one may stand under any key that is no option: mistyped, or a level too high.
    """
    found = set(told_secrets(entries, ""))
    for entry in entries.values() if isinstance(entries, Mapping) else ():
        for backend in entry if isinstance(entry, Mapping) else ():
            for option in BACKENDS.get(backend, {}).values():
                if option.get("no_log"):
                    found.update(os.environ.get(name, "") for name in option.get("fallback", (None, []))[1])
    found.discard("")
    return found | {value.strip() for value in found if value.strip()}  # a message may quote it without its line end


def told_secrets(told: Any, key: str) -> Iterator[str]:
    """What stands under the key of a secret; and under one that is no option, unless it is too short to be one."""
    if isinstance(told, Mapping):
        for name, value in told.items():
            yield from told_secrets(value, str(name))
    elif isinstance(told, (list, tuple)):
        for value in told:
            yield from told_secrets(value, key)
    elif key in SECRET or (key not in PLAIN and not isinstance(told, bool) and len(str(told)) >= SHORTEST):
        yield "" if told is None else str(told)


def warnings_of(entries: Mapping[str, Any], only: Sequence[str] = ()) -> list[str]:
    """What a user who reaches these hypervisors has to know first."""
    return [
        f"The certificate of {name} is not checked (validate_certs: false): anybody between here and there can read "
        "its password and lie about its VMs. Set ca_path instead."
        for name in chosen_names(entries, only)
        if validate_entry(name, entries[name]).get("validate_certs") is False
    ]


def connect(name: str, entry: Any, on_data_host: bool = False) -> Hypervisor:
    """Connect to one hypervisor, on its data host by ``data_uri``.

    Raises ``AuthFailed``, ``TaskFailed`` or ``Unsupported`` with what to do.
    """
    options = validate_entry(name, entry)
    if options["backend"] == "fake":
        from ._fake.hypervisor import FakeHypervisor

        return FakeHypervisor(name, options["path"])
    if options["backend"] == "vsphere":
        from ._vsphere.api import VsphereHypervisor

        return VsphereHypervisor(name, options)
    if options["backend"] == "proxmox":
        from ._proxmox.api import ProxmoxHypervisor

        return ProxmoxHypervisor(name, options)
    from ._libvirt.api import LibvirtHypervisor

    return LibvirtHypervisor(name, options["data_uri" if on_data_host else "uri"], options["connect_timeout"])
