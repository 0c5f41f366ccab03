# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What vmward itself refuses on vSphere when a step is submitted: told when it is planned, and in check mode too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from .._hypervisor import Pending, done
from .._model import Vm


class Rehearsal:
    """Stands in for the endpoint while the steps of one VM are gone through: each is asked for, none is taken."""

    def __init__(self, required: Mapping[str, Callable[[Vm], object]]) -> None:
        self._required = required

    def __getattr__(self, submit: str) -> Callable[..., Pending]:
        def submitted(vm: Vm, *_told: Any, **_more: Any) -> Pending:
            if submit in self._required:
                self._required[submit](vm)
            return done(vm.ref, submit)

        return submitted
