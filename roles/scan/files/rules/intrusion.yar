// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A few generic signs of intrusion, chosen for few false alarms. They do not replace a maintained rule set.
// Each of these has no use but an attack, so a match says: infected. What has honest uses too is in hints.yar.

rule reverse_shell_one_liner
{
    meta:
        description = "A one-liner that hands a shell to a remote host"
        severity = "malicious"
        reference = "https://attack.mitre.org/techniques/T1059/004/"
        source = "https://gtfobins.github.io/#+reverse%20shell"
    strings:
        $bash = /\b(ba|z|da|k)?sh\s+-i\s*[0-9]?(>&|&>|<>)\s*\/dev\/(tcp|udp)\/[0-9]{1,3}(\.[0-9]{1,3}){3}\/[0-9]{2,5}/
        $exec = /exec\s+[0-9]{1,3}<>\s*\/dev\/tcp\/[0-9]{1,3}(\.[0-9]{1,3}){3}\/[0-9]{2,5}/
        $fifo = /mkfifo\s+\/tmp\/[A-Za-z0-9._-]{1,32}\s*;\s*(cat|nc|sh|bash)\b[^\n]{0,80}\|\s*(nc|ncat|telnet|openssl)\s+[^\n]{0,40}[0-9]{2,5}/
        $nc = /\b(nc|ncat)(\.traditional)?\s+(-[a-z]{1,4}\s+){0,3}-[a-z]{0,3}e\s+\/bin\/(ba)?sh\s+[0-9]{1,3}(\.[0-9]{1,3}){3}\s+[0-9]{2,5}/
        $python = /socket\.socket\([^\n]{0,80};\s*s\.connect\(\(["'][0-9.]{7,15}["'],\s*[0-9]{2,5}\)\)[^\n]{0,40}os\.dup2\(/
        $perl = /use Socket;\s*\$i\s*=\s*["'][0-9.]{7,15}["'];\s*\$p\s*=\s*[0-9]{2,5};/
        $php = /fsockopen\(["'][0-9.]{7,15}["'],\s*[0-9]{2,5}\);\s*@?(exec|shell_exec|system|passthru|popen|proc_open)\s*\(/
        $socat = /\bsocat\s+[^\n]{0,60}\b(exec|EXEC):["']?(\/bin\/)?(ba|da)?sh\b[^\n]{0,80}\b(tcp|TCP)4?:[0-9.]{7,15}:[0-9]{2,5}/
    condition:
        filesize < 20MB and any of them
}

rule crypto_miner_configuration
{
    meta:
        description = "Configuration or command line of a crypto miner"
        severity = "malicious"
        reference = "https://attack.mitre.org/techniques/T1496/001/"
        source = "https://xmrig.com/docs/miner/config"
    strings:
        $pool = /stratum\+(tcp|ssl|tls):\/\/[A-Za-z0-9.-]{4,80}:[0-9]{2,5}/
        $donate = "\"donate-level\""
        $algorithm = /"algo"\s*:\s*"(rx|cn|argon2)/
        $randomx = "\"randomx\""
        $option = /--(coin|algo)[= ](monero|rx\/0|cn\/r)/
    condition:
        filesize < 20MB and $pool and 1 of ($donate, $algorithm, $randomx, $option)
}

rule crypto_miner_program
{
    meta:
        description = "A program for Linux or Windows that mines on a pool"
        severity = "malicious"
        reference = "https://attack.mitre.org/techniques/T1496/001/"
        source = "https://github.com/xmrig/xmrig"
    strings:
        $tcp = "stratum+tcp://"
        $ssl = "stratum+ssl://"
        $donate = "donate-level"
        $nicehash = "nicehash"
        $job = "mining.subscribe"
        $agent = "XMRig/"
        $threads = "cpu-max-threads-hint"
    condition:
        filesize < 50MB and (uint32(0) == 0x464C457F or uint16(0) == 0x5A4D) and any of ($tcp, $ssl) and 2 of ($donate, $nicehash, $job, $agent, $threads)
}

rule php_web_shell
{
    meta:
        description = "PHP that runs what a request sends"
        severity = "malicious"
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        source = "https://github.com/nsacyber/Mitigating-Web-Shells"
    strings:
        $php = "<?php" nocase
        $short = "<?="
        $run = /\b(eval|assert|system|shell_exec|passthru|popen|proc_open)\s*\(\s*(@?\s*(base64_decode|gzinflate|gzuncompress|str_rot13)\s*\(\s*){0,3}@?\$_(GET|POST|REQUEST|COOKIE)\s*\[/ nocase
        $call = /\$_(GET|POST|REQUEST|COOKIE)\s*\[[^\]\n]{1,40}\]\s*\(\s*@?\$_(GET|POST|REQUEST|COOKIE)\s*\[/ nocase
    condition:
        filesize < 2MB and any of ($php, $short) and any of ($run, $call)
}

rule jsp_web_shell
{
    meta:
        description = "A Java server page that runs what a request sends"
        severity = "malicious"
        reference = "https://attack.mitre.org/techniques/T1505/003/"
        source = "https://github.com/nsacyber/Mitigating-Web-Shells"
    strings:
        $run = /\.exec\s*\(\s*(new\s+String\s*\[\s*\]\s*\{[^}\n]{0,80})?request\.getParameter\s*\(/
        $process = /new\s+ProcessBuilder\s*\([^;\n]{0,80}request\.getParameter\s*\(/
    condition:
        filesize < 1MB and any of them
}

rule asp_web_shell
{
    meta:
        description = "An active server page that evaluates what a request sends"
        severity = "malicious"
        reference = "https://attack.mitre.org/software/S0020/"
        source = "https://github.com/nsacyber/Mitigating-Web-Shells"
    strings:
        $run = /<%[^\n]{0,200}\b(eval|execute|executeglobal)\s*\(?\s*request(\.(item|form|querystring|params))?\s*[\[(]/ nocase
    condition:
        filesize < 1MB and $run
}

rule preloaded_library_from_writable_place
{
    meta:
        description = "A list of preloaded libraries that names one in a place that everybody may write to"
        severity = "malicious"
        reference = "https://attack.mitre.org/techniques/T1574/006/"
        source = "https://man7.org/linux/man-pages/man8/ld.so.8.html"
    strings:
        // The whole file is such a list, of a few entries: many are an index of files
        $line = /^\s*(#[^\n]*\n\s*|\/[^\s:]+[\s:]+){0,8}\/(tmp|var\/tmp|dev\/shm)\/[^\s:]+\.so[0-9.]*([\s:]+(\/[^\s:]+|#[^\n]*)){0,8}\s*$/
        $variable = /\bLD_PRELOAD=["']?(\/[^\s"':]{1,200}[ :]){0,8}\/(tmp|var\/tmp|dev\/shm)\/[^\s"']{1,200}\.so/
    condition:
        filesize < 64KB and any of them
}
