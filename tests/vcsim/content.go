// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

// A snapshot keeps what the disks hold, and a revert brings it back. vCenter has a file more for it; here it is a copy.

import (
	"os"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// disks are the files with the content of the machine's disks.
func (m *machine) disks(ctx *simulator.Context) []string {
	var found []string
	for _, device := range m.Config.Hardware.Device {
		if layer, ok := device.GetVirtualDevice().Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
			local := m.local(ctx, layer.FileName)
			if flat := strings.TrimSuffix(local, ".vmdk") + "-flat.vmdk"; exists(flat) {
				found = append(found, flat)
			}
		}
	}
	return found
}

func (m *machine) keepContent(ctx *simulator.Context, kept types.ManagedObjectReference) {
	for _, disk := range m.disks(ctx) {
		if content, err := os.ReadFile(disk); err == nil {
			_ = os.WriteFile(disk+"."+kept.Value, content, 0o600)
		}
	}
}

func (m *machine) bringContentBack(ctx *simulator.Context, kept types.ManagedObjectReference) {
	for _, disk := range m.disks(ctx) {
		if content, err := os.ReadFile(disk + "." + kept.Value); err == nil {
			_ = os.WriteFile(disk, content, 0o600)
		}
	}
}

func (m *machine) forgetContent(ctx *simulator.Context, kept types.ManagedObjectReference) {
	for _, disk := range m.disks(ctx) {
		_ = os.Remove(disk + "." + kept.Value)
	}
}
