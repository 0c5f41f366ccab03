// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A few generic signs of intrusion on Linux, chosen for few false alarms. They do not replace a maintained rule set.

rule reverse_shell_one_liner
{
    meta:
        description = "A shell or interpreter one-liner that hands a shell to a remote host"
    strings:
        $bash = /\b(ba|z|da|k)?sh\s+-i\s*[0-9]?(>&|&>|<>)\s*\/dev\/(tcp|udp)\/[0-9]{1,3}(\.[0-9]{1,3}){3}\/[0-9]{2,5}/
        $exec = /exec\s+[0-9]{1,3}<>\s*\/dev\/tcp\/[0-9]{1,3}(\.[0-9]{1,3}){3}\/[0-9]{2,5}/
        $fifo = /mkfifo\s+\/tmp\/[A-Za-z0-9._-]{1,32}\s*;\s*(cat|nc|sh|bash)\b[^\n]{0,80}\|\s*(nc|ncat|telnet|openssl)\s+[^\n]{0,40}[0-9]{2,5}/
        $nc = /\b(nc|ncat)(\.traditional)?\s+(-[a-z]{1,4}\s+){0,3}-[a-z]{0,3}e\s+\/bin\/(ba)?sh\s+[0-9]{1,3}(\.[0-9]{1,3}){3}\s+[0-9]{2,5}/
        $python = /socket\.socket\([^\n]{0,80};\s*s\.connect\(\(["'][0-9.]{7,15}["'],\s*[0-9]{2,5}\)\)[^\n]{0,40}os\.dup2\(/
    condition:
        any of them
}

rule crypto_miner_configuration
{
    meta:
        description = "Configuration or command line of a crypto miner"
    strings:
        $pool = /stratum\+(tcp|ssl|tls):\/\/[A-Za-z0-9.-]{4,80}:[0-9]{2,5}/
        $donate = "\"donate-level\""
        $algorithm = /"algo"\s*:\s*"(rx|cn|argon2)/
        $randomx = "\"randomx\""
        $option = /--(coin|algo)[= ](monero|rx\/0|cn\/r)/
    condition:
        $pool and 1 of ($donate, $algorithm, $randomx, $option)
}

rule php_web_shell
{
    meta:
        description = "PHP that runs what a request sends"
    strings:
        $php = "<?php" nocase
        $run = /\b(eval|assert|system|shell_exec|passthru|popen|proc_open)\s*\(\s*(@?\s*(base64_decode|gzinflate|gzuncompress|str_rot13)\s*\(\s*){0,3}@?\$_(GET|POST|REQUEST|COOKIE)\s*\[/ nocase
    condition:
        filesize < 2MB and $php and $run
}

rule preloaded_library_from_writable_place
{
    meta:
        description = "A list of preloaded libraries that names one in a place that everybody may write to"
    strings:
        $line = /^\s*\/(tmp|var\/tmp|dev\/shm)\/[^\s]{1,200}\.so[0-9.]*\s*$/
        $variable = /\bLD_PRELOAD=\/(tmp|var\/tmp|dev\/shm)\/[^\s"']{1,200}\.so/
    condition:
        filesize < 64KB and any of them
}

rule download_and_run_persistence
{
    meta:
        description = "A cron line, unit or start script that downloads and runs at once"
    strings:
        $cron = /(^|\n)\s*(@reboot|@hourly|@daily|[0-9*\/,-]+(\s+[0-9*\/,-]+){4})\s+[^\n#]{0,120}\b(curl|wget)\s[^\n|]{0,200}\|\s*(sudo\s+)?(ba|da|z)?sh\b/
        $unit = /\nExec(Start|StartPre|StartPost|Stop)\s*=[^\n]{0,120}\b(curl|wget)\s[^\n|]{0,200}\|\s*(sudo\s+)?(ba|da|z)?sh\b/
    condition:
        filesize < 1MB and any of them
}
