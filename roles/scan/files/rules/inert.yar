// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// Samples that do no harm: they show that the path from a disk to a finding works.

rule eicar_test_file
{
    meta:
        description = "The EICAR test file"
        severity = "malicious"
        reference = "https://www.eicar.org/download-anti-malware-testfile/"
    strings:
        // In hex, so that no scanner takes this file for a sample.
        $eicar = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D 24 45 49 43 41 52 2D
                   53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D 54 45 53 54 2D 46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        // Its definition: at the start, and at most 128 bytes in all. The magic database of file(1) holds the string too.
        filesize <= 128 and $eicar at 0
}

rule vmward_inert_sample
{
    meta:
        description = "A sample planted by a drill"
        severity = "malicious"
        reference = "docs/scanning.md"
    strings:
        $marker = { 56 4D 57 41 52 44 2D 49 4E 45 52 54 2D 53 41 4D 50 4C 45 }
    condition:
        $marker
}
