# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors that reach a responder: one small tree, each a sentence that says what to do."""

from __future__ import annotations

from typing import Any, Callable


class VmwardError(Exception):
    """Base of every error that vmward raises on purpose. ``str(error)`` is the sentence to show."""


class NotFound(VmwardError):
    """A selector, snapshot, disk or image matched nothing."""


class Ambiguous(VmwardError):
    """A selector matched more than one object; the sentence lists the candidates."""


class Unsupported(VmwardError):
    """The hypervisor, its version or the VM's kind cannot do this; raised before the first write."""


class NeverRuns(Unsupported):
    """A template: no verb is for it, and no address is its."""


class Unjudged(Unsupported):
    """Something of a VM is of a kind never seen. Every verb stops here but the cut, which goes on with ``vm``."""

    def __init__(self, sentence: str, vm: Any) -> None:
        super().__init__(sentence)
        self.vm = vm  # what could be read; a power state never seen is given as running, the stricter


class AuthFailed(VmwardError):
    """The hypervisor refused the log-in or the permission."""


class NotAllowed(AuthFailed):
    """A right is missing, which was seen before anything was touched."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause} Nothing was touched. {cure}")
        self.cause, self.cure = cause, cure

    def later(self) -> AuthFailed:
        """The same, of a step that others came before."""
        return AuthFailed(f"{self.cause} {self.cure}")


class Refused(VmwardError):
    """Safe by default: the request would lose something, and nobody has said that it may."""


class TimedOut(VmwardError):
    """A deadline passed. The work may still be running: ``task`` names it for the next run."""

    def __init__(self, sentence: str, task: str | None = None) -> None:
        super().__init__(sentence)
        self.task = task


class TaskFailed(VmwardError):
    """The hypervisor took the request and then failed it."""


class NotVerified(VmwardError):
    """The hypervisor said OK, but reading back shows another state."""


def attempt(what: str, call: Callable[..., Any], *args: Any) -> Any:
    """Call for one VM; a surprise (a backend's bug) becomes that VM's own error and never stops the others."""
    try:
        return call(*args)
    except VmwardError:
        raise
    except Exception as exc:
        raise TaskFailed(f"Cannot {what}: unexpected {type(exc).__name__}: {exc}. Please report this.") from exc
