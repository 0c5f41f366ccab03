# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation shared by the modules that scan."""

from __future__ import annotations


class ModuleDocFragment:
    """What judges, within which limits, and what is known already."""

    DOCUMENTATION = r"""
options:
  rules:
    description:
      - YARA rule files, or directories whose C(*.yar) and C(*.yara) files are used, behind symbolic links too.
      - The directive C(include) is not allowed in them.
      - A match of a rule whose metadata say C(severity = "suspicious") is an indicator, which makes the verdict V(incomplete). Any
        other match is a finding, which makes it V(infected).
    type: list
    elements: path
    default: []
  indicators:
    description:
      - Files with indicators of compromise, each a plain mapping in YAML or JSON, or a STIX 2.1 bundle. They are looked for in the
        same pass.
      - The mapping has the keys C(sha256), C(sha1), C(md5), C(paths), C(names), C(ips) and C(domains), each once and with a list
        of texts.
      - A hash, path or name that is found is a finding. An address or domain is an indicator only, since a log may tell of an
        attack.
      - Of STIX, patterns of one comparison, or of several joined by C(OR), are looked for. All others are listed in the
        coverage notes.
    type: list
    elements: path
    default: []
  deadline:
    description: Seconds after which the scan ends as V(incomplete).
    type: int
    default: 7200
  cpu_limit:
    description: Seconds of processor time after which the scan ends as V(incomplete).
    type: int
    default: 7200
  memory_limit:
    description:
      - Memory in MiB that each scanning process may take on top of its loaded engines, which processes of one run share.
        So all scans of a host together take at most this times O(at_once), and their engines.
      - Files larger than a quarter of it are given to YARA in overlapping parts, and make the verdict V(incomplete).
      - At least V(64).
    type: int
    default: 2048
  file_timeout:
    description:
      - Seconds that one file may take, over all that is done with it. It is read, hashed and judged by every engine, and so is all
        that is unpacked from it.
      - A file that takes longer makes the verdict V(incomplete), with its name. What was found in it until then stays, and the scan
        goes on with the next file.
      - What is matched as raw bytes (free space, swap, memory) is no file and may take as long as O(deadline) allows, but no part of
        16 MiB longer than this.
    type: int
    default: 300
  at_once:
    description:
      - How many scanning processes may run at once on the host, over all scans that run on it as root. Others wait for their turn, which
        counts for their O(deadline).
      - Each disk is read by one of them. One of which at least 2 GiB are to be judged (1 GiB with 2500 rules and more) is
        shared by several, where there are cores left. So is the search for a clean point.
      - V(0) stands for as many as there are cores, but no more than would fit into the free memory with O(memory_limit) each.
    type: int
    default: 0
  progress_file:
    description: File to be replaced about once a second with the progress in JSON.
    type: path
"""

    FILES = r"""
options:
  clamd_socket:
    description:
      - UNIX socket of a running clamd. If it is set, the engine V(clamd) is used and must work.
      - Where it is among O(engines_required), C(AlertExceedsMax yes) and C(ScanArchive yes) in C(clamd.conf) are needed for
        the verdict V(clean).
    type: path
  clamd_database:
    description:
      - Directory of clamd's signatures. clamd tells the version of its official signatures only, and nothing of others that it has
        loaded or failed to load. So a file C(vmward.hsb) is put there whenever its files were changed, clamd is told to load them, and
        they are relied on once clamd finds what that file names; it is given 120 seconds for that.
      - Nothing is written there without O(index_directory), or in check mode. The file can be deleted at any time.
      - Without this option, or where clamd does not load the file (C(OfficialDatabaseOnly yes), another directory, a broken file of
        signatures), nothing that ClamAV judged is relied on later.
    type: path
  engines_required:
    description: Engines without which the verdict is at best V(incomplete).
    type: list
    elements: str
    choices: [yara, clamd]
    default: [yara]
  max_file_size:
    description: Files of more bytes are not scanned, and make the verdict V(incomplete). V(0) stands for no limit.
    type: int
    default: 0
  archive_depth:
    description:
      - How many layers of archives and packed files in each other are unpacked (gzip, bzip2, xz, lzip, zip, tar, ar, cpio, rpm), so that what
        lies in them is judged as files are. What lies deeper makes the verdict V(incomplete), with its name.
      - zstd is unpacked where the host has Python 3.14, or the library C(backports.zstd) or C(zstandard); lz4 where it has the library
        C(lz4). Without them such files are counted in C(archives_unopened), and C(coverage_notes) say what to install.
      - With V(0) nothing is unpacked, and all archives are counted in C(archives_unopened).
      - An engine that unpacks by itself (clamd) is given the file, and of what lies in it only what it does not see by itself.
    type: int
    default: 8
  archive_members:
    description: Files that the archives of one file may hold, over all layers. More make the verdict V(incomplete), with its name.
    type: int
    default: 50000
  archive_size:
    description:
      - Bytes that one file may unpack to, over all layers. More make the verdict V(incomplete), with its name, once as many are judged.
      - What is unpacked is held in memory, at most a quarter of O(memory_limit) at once, besides the file itself.
    type: int
    default: 1073741824
  archive_ratio:
    description:
      - How many times its own size one file may unpack to, over all layers. More make the verdict V(incomplete), with its name.
      - It does not count for the first 16 MiB.
    type: int
    default: 500
"""
