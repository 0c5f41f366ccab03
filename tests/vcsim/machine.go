// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

// What vCenter does and the simulator does not, after the published API
// (https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/):
// a snapshot keeps devices, notes, extra configuration, power and memory, and a revert brings them back; a suspend keeps
// the memory in a file, the boot time, and which cards were connected; a guest may ignore a request to shut down; a VM
// that is destroyed takes with it all that its disks stand on.

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
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

const (
	on        = types.VirtualMachinePowerStatePoweredOn
	off       = types.VirtualMachinePowerStatePoweredOff
	suspended = types.VirtualMachinePowerStateSuspended

	deaf     = "vmward.test.deaf"     // extra configuration of a VM whose guest ignores requests to shut down
	question = "vmward.test.question" // and of one about which vCenter has a question
)

type work func(*simulator.Task) (types.AnyType, types.BaseMethodFault)

var ours = map[string]bool{
	"PowerOnVM_Task": true, "PowerOffVM_Task": true, "SuspendVM_Task": true, "ResetVM_Task": true, "ShutdownGuest": true,
	"ReconfigVM_Task": true, "Destroy_Task": true, "CreateSnapshot_Task": true,
	"RemoveSnapshot_Task": true, "RevertToSnapshot_Task": true, "ExportVm": true, "ExportSnapshot": true,
	"StartProgramInGuest": true, "ListProcessesInGuest": true, "TerminateProcessInGuest": true,
	"CreateTemporaryDirectoryInGuest": true, "DeleteDirectoryInGuest": true, "InitiateFileTransferFromGuest": true,
}

// better answers with the object that serves a call on target in the simulator's stead, or nil to leave it alone.
func better(ctx *simulator.Context, target mo.Reference, method string, struck *fault) mo.Reference {
	if !ours[method] {
		return nil
	}
	switch object := target.(type) {
	case *simulator.GuestProcessManager:
		return &guestProcesses{object}
	case *simulator.GuestFileManager:
		return &guestFiles{object}
	case *simulator.VirtualMachine:
		return &machine{VirtualMachine: object, struck: struck}
	case *simulator.VirtualMachineSnapshot:
		if owner, ok := ctx.Map.Get(object.Vm).(*simulator.VirtualMachine); ok {
			return &snapshot{VirtualMachineSnapshot: object, machine: &machine{owner, struck}}
		}
	}
	return nil
}

type machine struct {
	*simulator.VirtualMachine
	struck *fault // the task fails with this
}

type snapshot struct {
	*simulator.VirtualMachineSnapshot
	machine *machine
}

// run starts a task on the machine; a planned fault makes it fail before it has done anything.
func (m *machine) run(ctx *simulator.Context, name string, do work) types.ManagedObjectReference {
	return simulator.CreateTask(m.VirtualMachine, name, func(task *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if m.struck != nil {
			return nil, faultOf(m.struck.Fault, m.Self)
		}
		if task.Info.Cancelled {
			return nil, new(types.RequestCanceled)
		}
		return do(task)
	}).Run(ctx)
}

func (m *machine) is(state types.VirtualMachinePowerState) bool { return m.Runtime.PowerState == state }

func (m *machine) wrongState(wanted types.VirtualMachinePowerState) types.BaseMethodFault {
	return &types.InvalidPowerState{RequestedState: wanted, ExistingState: m.Runtime.PowerState}
}

// asleep holds, by machine, which of its devices were connected when its memory was saved: a resume brings that back,
// whatever was configured since.
var asleep sync.Map

func sleeps(reference types.ManagedObjectReference, devices []types.BaseVirtualDevice) {
	connected := map[int32]bool{}
	for _, device := range devices {
		if link := device.GetVirtualDevice().Connectable; link != nil {
			connected[device.GetVirtualDevice().Key] = link.Connected
		}
	}
	asleep.Store(reference, connected)
}

// turn changes the power; a cold start applies what startConnected says.
func (m *machine) turn(ctx *simulator.Context, state types.VirtualMachinePowerState) {
	devices := copied(m.Config.Hardware.Device)
	memory, _ := asleep.Load(m.Self)
	was, _ := memory.(map[int32]bool)
	for _, device := range devices {
		link := device.GetVirtualDevice().Connectable
		switch {
		case link == nil:
		case state == off:
			link.Connected = false
		case state == on && m.is(off):
			link.Connected = link.StartConnected
		case state == on:
			link.Connected = was[device.GetVirtualDevice().Key]
		}
	}
	if state == suspended {
		sleeps(m.Self, devices)
	}
	changes := []types.PropertyChange{
		{Name: "runtime.powerState", Val: state},
		{Name: "summary.runtime.powerState", Val: state},
		{Name: "config.hardware.device", Val: devices},
	}
	if state == off || m.is(off) {
		var boot *time.Time
		if state == on {
			now := time.Now()
			boot = &now
		}
		m.Runtime.BootTime, m.Summary.Runtime.BootTime = boot, boot
	}
	ctx.Update(m.VirtualMachine, append(changes, m.tools(state)))
}

func (m *machine) PowerOnVMTask(ctx *simulator.Context, _ *types.PowerOnVM_Task) soap.HasFault {
	if m.Config.Template {
		return &methods.PowerOnVM_TaskBody{Fault_: simulator.Fault("It is a template.", &types.InvalidState{})}
	}
	task := m.run(ctx, "powerOn", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if m.is(on) {
			return nil, m.wrongState(on)
		}
		m.turn(ctx, on)
		return nil, nil
	})
	return &methods.PowerOnVM_TaskBody{Res: &types.PowerOnVM_TaskResponse{Returnval: task}}
}

func (m *machine) PowerOffVMTask(ctx *simulator.Context, _ *types.PowerOffVM_Task) soap.HasFault {
	task := m.run(ctx, "powerOff", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if m.is(off) {
			return nil, m.wrongState(off)
		}
		m.forget("suspendMemory", "suspend")
		m.turn(ctx, off)
		return nil, nil
	})
	return &methods.PowerOffVM_TaskBody{Res: &types.PowerOffVM_TaskResponse{Returnval: task}}
}

func (m *machine) SuspendVMTask(ctx *simulator.Context, _ *types.SuspendVM_Task) soap.HasFault {
	task := m.run(ctx, "suspend", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if !m.is(on) {
			return nil, m.wrongState(suspended)
		}
		m.keep(ctx, m.Name+".vmss", "suspend", 64*1024)
		m.keep(ctx, m.Name+".vmem", "suspendMemory", m.memory())
		m.turn(ctx, suspended)
		return nil, nil
	})
	return &methods.SuspendVM_TaskBody{Res: &types.SuspendVM_TaskResponse{Returnval: task}}
}

// ResetVMTask presses the button: the guest starts anew, the virtual machine runs on.
func (m *machine) ResetVMTask(ctx *simulator.Context, _ *types.ResetVM_Task) soap.HasFault {
	task := m.run(ctx, "reset", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if !m.is(on) {
			return nil, m.wrongState(on)
		}
		return nil, nil
	})
	return &methods.ResetVM_TaskBody{Res: &types.ResetVM_TaskResponse{Returnval: task}}
}

func (m *machine) ShutdownGuest(ctx *simulator.Context, _ *types.ShutdownGuest) soap.HasFault {
	if !m.is(on) {
		return &methods.ShutdownGuestBody{Fault_: simulator.Fault("", m.wrongState(on))}
	}
	for _, option := range m.Config.ExtraConfig {
		if option.GetOptionValue().Key == deaf {
			return &methods.ShutdownGuestBody{Res: new(types.ShutdownGuestResponse)}
		}
	}
	m.run(ctx, "shutdownGuest", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		m.turn(ctx, off)
		return nil, nil
	})
	return &methods.ShutdownGuestBody{Res: new(types.ShutdownGuestResponse)}
}

// ask lets vCenter have a question about the machine, or none.
func (m *machine) ask(ctx *simulator.Context, text string) {
	change := types.PropertyChange{Name: "runtime.question"}
	if text != "" {
		change.Val = types.VirtualMachineQuestionInfo{Id: "1", Text: text}
	}
	ctx.Update(m.VirtualMachine, []types.PropertyChange{change})
}

// ReconfigVMTask works on a copy of the configuration: snapshots hold on to the former one.
func (m *machine) ReconfigVMTask(ctx *simulator.Context, request *types.ReconfigVM_Task) soap.HasFault {
	if m.struck != nil {
		task := m.run(ctx, "reconfigure", nil)
		return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: task}}
	}
	for _, option := range request.Spec.ExtraConfig {
		if told := option.GetOptionValue(); told.Key == question {
			text, _ := told.Value.(string)
			m.ask(ctx, text)
		}
	}
	fresh := *m.Config
	fresh.Hardware.Device = copied(m.Config.Hardware.Device)
	fresh.ExtraConfig = append([]types.BaseOptionValue(nil), m.Config.ExtraConfig...)
	m.Config = &fresh
	return m.VirtualMachine.ReconfigVMTask(ctx, request)
}

func (m *machine) DestroyTask(ctx *simulator.Context, request *types.Destroy_Task) soap.HasFault {
	if m.struck != nil {
		task := m.run(ctx, "destroy", nil)
		return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: task}}
	}
	if !m.is(on) {
		for _, device := range m.Config.Hardware.Device {
			m.unlink(ctx, device.GetVirtualDevice().Backing)
		}
	}
	return m.VirtualMachine.DestroyTask(ctx, request)
}

// unlink removes an image and all that it stands on, whoever else uses that.
func (m *machine) unlink(ctx *simulator.Context, backing types.BaseVirtualDeviceBackingInfo) {
	layer, _ := backing.(*types.VirtualDiskFlatVer2BackingInfo)
	for ; layer != nil; layer = layer.Parent {
		if local := m.local(ctx, layer.FileName); local != "" {
			_ = os.Remove(local)
		}
	}
}

func (m *machine) CreateSnapshotTask(ctx *simulator.Context, request *types.CreateSnapshot_Task) soap.HasFault {
	task := m.run(ctx, "createSnapshot", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return m.snap(ctx, request), nil
	})
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: task}}
}

var lastSnapshot atomic.Int32

func (m *machine) snap(ctx *simulator.Context, request *types.CreateSnapshot_Task) types.ManagedObjectReference {
	kept := &simulator.VirtualMachineSnapshot{}
	kept.Vm, kept.Config = m.Self, *m.Config
	kept.Config.Hardware.Device = copied(m.Config.Hardware.Device)
	ctx.Map.Put(kept)
	m.keepContent(ctx, kept.Self)
	number, state := lastSnapshot.Add(1), off
	layout := types.VirtualMachineFileLayoutExSnapshotLayout{Key: kept.Self, MemoryKey: -1}
	layout.DataKey = m.keep(ctx, fmt.Sprintf("%s-Snapshot%d.vmsn", m.Name, number), "snapshotData", 64*1024)
	if request.Memory && !m.is(off) {
		state = m.Runtime.PowerState
		layout.MemoryKey = m.keep(ctx, fmt.Sprintf("%s-Snapshot%d.vmem", m.Name, number), "snapshotMemory", m.memory())
	}
	m.LayoutEx.Snapshot = append(m.LayoutEx.Snapshot, layout)
	leaf := types.VirtualMachineSnapshotTree{
		Snapshot: kept.Self, Vm: m.Self, Name: request.Name, Description: request.Description,
		Id: number, CreateTime: time.Now(), State: state, Quiesced: request.Quiesce && m.is(on) && m.guest() != nil, // else it is ignored

		ReplaySupported: types.NewBool(false),
	}
	info := types.VirtualMachineSnapshotInfo{CurrentSnapshot: &kept.Self}
	if m.Snapshot == nil || m.Snapshot.CurrentSnapshot == nil {
		if m.Snapshot != nil {
			info.RootSnapshotList = m.Snapshot.RootSnapshotList
		}
		info.RootSnapshotList = append(info.RootSnapshotList, leaf)
	} else {
		info.RootSnapshotList = grafted(m.Snapshot.RootSnapshotList, *m.Snapshot.CurrentSnapshot, leaf)
	}
	m.update(ctx, info)
	return kept.Self
}

func (m *machine) update(ctx *simulator.Context, info types.VirtualMachineSnapshotInfo) {
	roots := make([]types.ManagedObjectReference, len(info.RootSnapshotList))
	for i, root := range info.RootSnapshotList {
		roots[i] = root.Snapshot
	}
	changes := []types.PropertyChange{{Name: "snapshot", Val: info}, {Name: "rootSnapshot", Val: roots}}
	if len(roots) == 0 {
		changes = []types.PropertyChange{{Name: "snapshot", Val: nil}, {Name: "rootSnapshot", Val: nil}}
	}
	ctx.Update(m.VirtualMachine, changes)
}

func (s *snapshot) RemoveSnapshotTask(ctx *simulator.Context, _ *types.RemoveSnapshot_Task) soap.HasFault {
	m := s.machine
	task := m.run(ctx, "removeSnapshot", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		info := types.VirtualMachineSnapshotInfo{CurrentSnapshot: m.Snapshot.CurrentSnapshot}
		if info.CurrentSnapshot != nil && *info.CurrentSnapshot == s.Self {
			info.CurrentSnapshot = parentOf(m.Snapshot.RootSnapshotList, s.Self)
		}
		info.RootSnapshotList = pruned(m.Snapshot.RootSnapshotList, s.Self)
		m.update(ctx, info)
		ctx.Map.Remove(ctx, s.Self)
		m.forgetContent(ctx, s.Self)
		return nil, nil
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: task}}
}

// RevertToSnapshotTask brings devices, notes and power back. With the power-on suppressed, a snapshot with memory
// leaves the machine suspended.
func (s *snapshot) RevertToSnapshotTask(ctx *simulator.Context, request *types.RevertToSnapshot_Task) soap.HasFault {
	m := s.machine
	task := m.run(ctx, "revertToSnapshot", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		fresh := s.Config
		fresh.Hardware.Device = copied(s.Config.Hardware.Device)
		m.Config = &fresh
		m.bringContentBack(ctx, s.Self)
		m.forget("suspendMemory", "suspend")
		state := stateOf(m.Snapshot.RootSnapshotList, s.Self)
		if state == on && request.SuppressPowerOn != nil && *request.SuppressPowerOn {
			state = suspended
		}
		if state == suspended {
			sleeps(m.Self, fresh.Hardware.Device)
		}
		if state == on {
			now := time.Now()
			m.Runtime.BootTime, m.Summary.Runtime.BootTime = &now, &now
		}
		if state == off {
			m.Runtime.BootTime, m.Summary.Runtime.BootTime = nil, nil
			for _, device := range fresh.Hardware.Device {
				if link := device.GetVirtualDevice().Connectable; link != nil {
					link.Connected = false
				}
			}
		}
		ctx.Update(m.VirtualMachine, []types.PropertyChange{
			{Name: "config", Val: m.Config},
			{Name: "runtime.powerState", Val: state},
			{Name: "summary.runtime.powerState", Val: state},
			{Name: "snapshot.currentSnapshot", Val: s.Self},
		})
		return nil, nil
	})
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: task}}
}

// keep writes a file beside the machine's others and enters it into its layout; answers its key.
func (m *machine) keep(ctx *simulator.Context, name, kind string, size int64) int32 {
	var key int32
	for _, file := range m.LayoutEx.File {
		key = max(key, file.Key+1)
	}
	text := path.Join(path.Dir(m.Config.Files.VmPathName), name) // "[datastore] directory/name"
	if local := m.local(ctx, text); local != "" {
		written := int(min(size, 1<<20)) // the rest is a hole: a hundred VMs are suspended at once
		content := []byte(strings.Repeat("memory of "+m.Name+"\n", 1+written/(len(m.Name)+11)))
		_ = os.MkdirAll(filepath.Dir(local), 0o700)
		_ = os.WriteFile(local, content[:written], 0o600)
		_ = os.Truncate(local, size)
	}
	m.LayoutEx.File = append(m.LayoutEx.File, types.VirtualMachineFileLayoutExFileInfo{
		Key: key, Name: text, Type: kind, Size: size, UniqueSize: size, Accessible: types.NewBool(true),
	})
	return key
}

func (m *machine) forget(kinds ...string) {
	var left []types.VirtualMachineFileLayoutExFileInfo
	for _, file := range m.LayoutEx.File {
		if !strings.Contains(" "+strings.Join(kinds, " ")+" ", " "+file.Type+" ") {
			left = append(left, file)
		}
	}
	m.LayoutEx.File = left
}

// local is where the simulator keeps a file of a datastore.
func (m *machine) local(ctx *simulator.Context, text string) string {
	name, file, found := strings.Cut(strings.TrimPrefix(text, "["), "] ")
	for _, reference := range m.Datastore {
		store, ok := ctx.Map.Get(reference).(*simulator.Datastore)
		if found && ok && store.Name == name {
			return filepath.Join(store.Summary.Url, file)
		}
	}
	return ""
}

func (m *machine) memory() int64 { return int64(m.Config.Hardware.MemoryMB) * 1024 * 1024 }

func copied(devices []types.BaseVirtualDevice) []types.BaseVirtualDevice {
	var out devicesOnly
	clone(devicesOnly{devices}, &out)
	return out.Device
}
