# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.vmward.remediation.plugins.plugin_utils._data_verb import DataVerb


class ActionModule(DataVerb):
    """Runs the module; a data host that does not answer fails the VM alone."""
