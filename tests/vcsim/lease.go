// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

// Export leases, after the published API
// (https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.HttpNfcLease.html): one on a VM that is
// switched off, or on a snapshot; each disk at an address of its own, which needs no session; a lease that nobody keeps
// alive ends.

import (
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const patience = 3 // seconds after which a lease ends

type exported struct {
	local string
	size  int64
}

type lease struct {
	mo.HttpNfcLease
	mutex sync.Mutex
	alive time.Time
	disks map[string]exported // address -> disk
}

var (
	leases    sync.Map // number -> *lease
	lastLease atomic.Int32
)

func (m *machine) lease(ctx *simulator.Context, devices []types.BaseVirtualDevice) types.ManagedObjectReference {
	number := fmt.Sprintf("session[test]lease-%d", lastLease.Add(1))
	given := &lease{alive: time.Now(), disks: map[string]exported{}}
	given.Self = types.ManagedObjectReference{Type: "HttpNfcLease", Value: number}
	given.State = types.HttpNfcLeaseStateReady
	given.Info = &types.HttpNfcLeaseInfo{Lease: given.Self, Entity: m.Self, LeaseTimeout: patience}
	at := ""
	for _, option := range ctx.Map.OptionManager().Setting {
		if option.GetOptionValue().Key == "vcsim.server.url" {
			at, _ = option.GetOptionValue().Value.(string)
		}
	}
	for _, device := range devices {
		disk, ok := device.(*types.VirtualDisk)
		if !ok {
			continue
		}
		name := fmt.Sprintf("disk-%d.vmdk", len(given.disks))
		url := strings.TrimSuffix(at, "/sdk") + "/nfc/" + number + "/" + name
		given.disks[name] = exported{m.image(ctx, disk), disk.CapacityInKB * 1024}
		given.Info.DeviceUrl = append(given.Info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
			Key: "/" + m.Self.Value + "/" + place(devices, disk), ImportKey: "/" + m.Name + "/" + place(devices, disk),
			Url: url, Disk: types.NewBool(true), TargetId: name,
		})
	}
	ctx.Map.Put(given)
	leases.Store(number, given)
	return given.Self
}

// image is the file with a disk's content: the extent beside the descriptor, where there is one.
func (m *machine) image(ctx *simulator.Context, disk *types.VirtualDisk) string {
	layer, _ := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if layer == nil {
		return ""
	}
	local := m.local(ctx, layer.FileName)
	if flat := strings.TrimSuffix(local, ".vmdk") + "-flat.vmdk"; exists(flat) {
		return flat
	}
	return local
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// place names a disk as vSphere does: ParaVirtualSCSIController0:1.
func place(devices []types.BaseVirtualDevice, disk *types.VirtualDisk) string {
	for _, device := range devices {
		controller, ok := device.(types.BaseVirtualController)
		if ok && device.GetVirtualDevice().Key == disk.ControllerKey {
			kind := reflect.TypeOf(device).Elem().Name()
			return fmt.Sprintf("%s%d:%d", kind, controller.GetVirtualController().BusNumber, *disk.UnitNumber)
		}
	}
	return ""
}

func (m *machine) ExportVm(ctx *simulator.Context, _ *types.ExportVm) soap.HasFault {
	if !m.is(off) {
		return &methods.ExportVmBody{Fault_: simulator.Fault("", m.wrongState(off))}
	}
	return &methods.ExportVmBody{Res: &types.ExportVmResponse{Returnval: m.lease(ctx, m.Config.Hardware.Device)}}
}

func (s *snapshot) ExportSnapshot(ctx *simulator.Context, _ *types.ExportSnapshot) soap.HasFault {
	given := s.machine.lease(ctx, s.Config.Hardware.Device)
	return &methods.ExportSnapshotBody{Res: &types.ExportSnapshotResponse{Returnval: given}}
}

func (l *lease) HttpNfcLeaseProgress(_ *simulator.Context, request *types.HttpNfcLeaseProgress) soap.HasFault {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.TransferProgress, l.alive = request.Percent, time.Now()
	return &methods.HttpNfcLeaseProgressBody{Res: new(types.HttpNfcLeaseProgressResponse)}
}

func (l *lease) HttpNfcLeaseComplete(ctx *simulator.Context, _ *types.HttpNfcLeaseComplete) soap.HasFault {
	l.end(ctx)
	return &methods.HttpNfcLeaseCompleteBody{Res: new(types.HttpNfcLeaseCompleteResponse)}
}

func (l *lease) HttpNfcLeaseAbort(ctx *simulator.Context, _ *types.HttpNfcLeaseAbort) soap.HasFault {
	l.end(ctx)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}

func (l *lease) end(ctx *simulator.Context) {
	leases.Delete(l.Self.Value)
	ctx.Map.Remove(ctx, l.Self)
}

// serveLease sends a disk; with half, the connection breaks in its middle.
func serveLease(w http.ResponseWriter, request *http.Request, half bool) {
	number, name, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/nfc/"), "/")
	found, ok := leases.Load(number)
	if !ok {
		http.NotFound(w, request)
		return
	}
	given := found.(*lease)
	given.mutex.Lock()
	forgotten := time.Since(given.alive) > patience*time.Second
	given.mutex.Unlock()
	disk, ok := given.disks[name]
	if !ok || forgotten {
		http.NotFound(w, request)
		return
	}
	content, _ := os.ReadFile(disk.local)
	var whole strings.Builder
	_ = streamed(&whole, content, disk.size)
	text := whole.String()
	if half {
		text = text[:len(text)/2]
	}
	_, _ = w.Write([]byte(text))
}
