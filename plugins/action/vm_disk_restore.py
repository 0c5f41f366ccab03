# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.vmward.remediation.plugins.plugin_utils._data_verb import LongVerb


class ActionModule(LongVerb):
    """Runs the module as a job and prints its progress."""

    default_deadline = 43200
    long_to_predict = True
