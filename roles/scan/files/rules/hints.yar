// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// What intruders do and administrators now and then do too. Their severity makes a match an indicator: the verdict is
// incomplete, and a person decides.

rule download_and_run_persistence
{
    meta:
        description = "A cron line, unit or start script that downloads and runs at once"
        severity = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1053/003/"
        source = "https://attack.mitre.org/techniques/T1543/002/"
    strings:
        $cron = /(^|\n)\s*(@(reboot|hourly|daily|weekly|monthly)|[0-9*\/,-]+(\s+[0-9A-Za-z*\/,-]+){4})\s+[^\n#]{0,120}\b(curl|wget)\s[^\n|]{0,200}\|\s*(sudo\s+)?(ba|da|z)?sh\b/
        $unit = /\nExec(Start|StartPre|StartPost|Stop)\s*=[^\n]{0,120}\b(curl|wget)\s[^\n|]{0,200}\|\s*(sudo\s+)?(ba|da|z)?sh\b/
        $address = /\b(curl|wget)\s[^\n|]{0,120}https?:\/\/[0-9]{1,3}(\.[0-9]{1,3}){3}[:\/][^\n|]{0,120}\|\s*(sudo\s+)?(ba|da|z)?sh\b/
    condition:
        filesize < 1MB and any of them
}

rule started_from_writable_place
{
    meta:
        description = "A cron line, unit or start script that starts a program in a place that everybody may write to"
        severity = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1543/002/"
        source = "https://attack.mitre.org/techniques/T1037/004/"
    strings:
        $unit = /\nExec(Start|StartPre|StartPost)\s*=\s*[@:+!-]{0,3}\/(tmp|var\/tmp|dev\/shm)\/[^\s\/]/
        $cron = /(^|\n)\s*(@(reboot|hourly|daily|weekly|monthly)|[0-9*\/,-]+(\s+[0-9A-Za-z*\/,-]+){4})\s+([a-z_][a-z0-9_-]{0,31}\s+)?((ba|da)?sh\s+)?\/(tmp|var\/tmp|dev\/shm)\/[^\s\/]/
        $script = /\n\s*(nohup\s+|setsid\s+|exec\s+){0,2}\/(tmp|var\/tmp|dev\/shm)\/[^\s;&|]{1,120}[^\n;&|]{0,120}&[ \t]*\n/
    condition:
        filesize < 256KB and (any of ($unit, $cron) or (uint16be(0) == 0x2321 and $script))
}

rule key_with_command
{
    meta:
        description = "A key for SSH log-ins that makes each log-in download, connect out, or run something in a place that everybody may write to"
        severity = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1098/004/"
        source = "https://man.openbsd.org/sshd.8#AUTHORIZED_KEYS_FILE_FORMAT"
    strings:
        $command = /\bcommand="[^"\n]{0,300}(\b(curl|wget)\s|\/dev\/(tcp|udp)\/|\/(tmp|var\/tmp|dev\/shm)\/)[^"\n]{0,300}"[^\n]{0,200}\s(ssh-(rsa|dss|ed25519)|ecdsa-sha2-nistp[0-9]{3}|sk-[a-z0-9-]{5,40}@openssh\.com)\s+AAAA/
    condition:
        filesize < 1MB and $command
}

rule key_planted_by_script
{
    meta:
        description = "A script that carries a key for SSH log-ins and appends it to the accepted ones"
        severity = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1098/004/"
        source = "https://man.openbsd.org/sshd.8#AUTHORIZED_KEYS_FILE_FORMAT"
    strings:
        $plant = /(echo|printf)\s[^\n]{0,40}(ssh-(rsa|ed25519)|ecdsa-sha2-nistp[0-9]{3})\s+AAAA[^\n]{60,1000}>[^\n]{0,80}authorized_keys/
    condition:
        filesize < 1MB and $plant
}

rule setuid_shell
{
    meta:
        description = "A script that makes a copy of a shell that gives its user's rights to everybody"
        severity = "suspicious"
        reference = "https://attack.mitre.org/techniques/T1548/001/"
        source = "https://gtfobins.github.io/#+suid"
    strings:
        $copy = /\bcp\s+(-[a-zA-Z]{1,4}\s+)?(\/usr)?\/bin\/(ba|da|z|k)?sh\s+\/[^\s;&|]{1,120}\s*(;|&&|\n)\s*(sudo\s+)?chmod\s+([ug+]{0,3}\+s|[46][0-7]{3})\s/
    condition:
        filesize < 1MB and $copy
}
