#!/bin/sh
# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# PID 1 of a world of its own, entered by world.py with unshare: own mounts, network and processes. libvirtd runs in it
# with its socket in $1, and is started again whenever it ends; when this process ends, everything in the world ends.
set -eu
for place in /run /etc/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
  mount -t tmpfs none "$place"
done
mount -t sysfs sysfs /sys
mkdir /var/lib/libvirt/dnsmasq
ip link set lo up
# The host's kernel solicits routers from each tap by itself; without that every frame on a tap is the guest's or to it.
echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6
cat > /etc/libvirt/libvirtd.conf <<END
unix_sock_dir = "$1"
auth_unix_rw = "none"
END
cat > /etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
END
while :; do
  /usr/sbin/libvirtd --pid-file /run/libvirtd.pid || true
  sleep 0.2
done
