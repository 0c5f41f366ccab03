// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

// Guest operations, after the published API
// (https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vim.vm.guest.GuestOperationsManager.html). The
// guest is this machine: programs run here, in a shell as Tools start them on Linux; files lie here. A VM whose extra
// configuration names a family, a user and a password has Tools that run.

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const guestOption = "vmward.test.guest" // "linuxGuest user password"

type guestProcesses struct{ *simulator.GuestProcessManager }

type guestFiles struct{ *simulator.GuestFileManager }

// guests is what goes on in them all.
var guests = struct {
	sync.Mutex
	processes   map[int64]*processInfo
	directories map[string]bool
	offers      map[string]string // token -> file
}{processes: map[int64]*processInfo{}, directories: map[string]bool{}, offers: map[string]string{}}

func (m *machine) guest() []string {
	for _, option := range m.Config.ExtraConfig {
		if value, ok := option.GetOptionValue().Value.(string); ok && option.GetOptionValue().Key == guestOption {
			return strings.SplitN(value, " ", 3)
		}
	}
	return nil
}

// tools tells what VMware Tools are like in this power state.
func (m *machine) tools(state types.VirtualMachinePowerState) types.PropertyChange {
	fresh, guest := types.GuestInfo{}, m.guest()
	if m.Guest != nil {
		fresh = *m.Guest
	}
	fresh.ToolsRunningStatus = string(types.VirtualMachineToolsRunningStatusGuestToolsNotRunning)
	fresh.GuestFamily, fresh.GuestOperationsReady = "", types.NewBool(guest != nil && state == on)
	if *fresh.GuestOperationsReady {
		fresh.ToolsRunningStatus = string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
		fresh.GuestFamily = guest[0]
	}
	return types.PropertyChange{Name: "guest", Val: fresh}
}

// refused is why a guest does not let somebody in; nil if it does.
func refused(ctx *simulator.Context, vm types.ManagedObjectReference, auth types.BaseGuestAuthentication) *soap.Fault {
	found, ok := ctx.Map.Get(vm).(*simulator.VirtualMachine)
	if !ok {
		return simulator.Fault("", &types.ManagedObjectNotFound{Obj: vm})
	}
	m := &machine{VirtualMachine: found}
	if !m.is(on) {
		return simulator.Fault("", m.wrongState(on))
	}
	guest := m.guest()
	if guest == nil {
		return simulator.Fault("The guest operations agent could not be contacted.", new(types.GuestOperationsUnavailable))
	}
	login, ok := auth.(*types.NamePasswordAuthentication)
	if !ok || login.Username != guest[1] || login.Password != guest[2] {
		return simulator.Fault("Failed to authenticate with the guest operating system.", new(types.InvalidGuestLogin))
	}
	return nil
}

func (p *guestProcesses) StartProgramInGuest(ctx *simulator.Context, request *types.StartProgramInGuest) soap.HasFault {
	if fault := refused(ctx, request.Vm, request.Auth); fault != nil {
		return &methods.StartProgramInGuestBody{Fault_: fault}
	}
	spec := request.Spec.GetGuestProgramSpec()
	command := exec.Command("/bin/bash", "-c", spec.ProgramPath+" "+spec.Arguments)
	command.Dir, command.SysProcAttr = spec.WorkingDirectory, &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return &methods.StartProgramInGuestBody{Fault_: simulator.Fault(err.Error(), new(types.FileNotFound))}
	}
	info := &processInfo{Name: "sh", Pid: int64(command.Process.Pid), StartTime: time.Now()}
	guests.Lock()
	defer guests.Unlock()
	guests.processes[info.Pid] = info
	go func() {
		status, now := statusOf(command.Wait()), time.Now()
		guests.Lock()
		defer guests.Unlock()
		info.EndTime, info.ExitCode = &now, &status
	}()
	return &methods.StartProgramInGuestBody{Res: &types.StartProgramInGuestResponse{Returnval: info.Pid}}
}

func statusOf(err error) int32 {
	var ended *exec.ExitError
	if !errors.As(err, &ended) {
		return 0
	}
	if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int32(status.Signal())
	}
	return int32(ended.ExitCode())
}

func (p *guestProcesses) ListProcessesInGuest(ctx *simulator.Context, request *types.ListProcessesInGuest) soap.HasFault {
	if fault := refused(ctx, request.Vm, request.Auth); fault != nil {
		return &methods.ListProcessesInGuestBody{Fault_: fault}
	}
	told := new(ListProcessesInGuestResponse)
	guests.Lock()
	defer guests.Unlock()
	for _, pid := range request.Pids {
		if info := guests.processes[pid]; info != nil {
			told.Returnval = append(told.Returnval, *info)
		}
	}
	return &processesBody{Res: told}
}

// processInfo tells an exit code of 0 too, which the library leaves out.
type processInfo struct {
	Name      string     `xml:"name"`
	Pid       int64      `xml:"pid"`
	Owner     string     `xml:"owner"`
	CmdLine   string     `xml:"cmdLine"`
	StartTime time.Time  `xml:"startTime"`
	EndTime   *time.Time `xml:"endTime"`
	ExitCode  *int32     `xml:"exitCode"`
}

// ListProcessesInGuestResponse has the name that the server gives the answer.
type ListProcessesInGuestResponse struct {
	Returnval []processInfo `xml:"returnval,omitempty"`
}

type processesBody struct {
	Res *ListProcessesInGuestResponse `xml:"ListProcessesInGuestResponse,omitempty"`
}

func (b *processesBody) Fault() *soap.Fault { return nil }

func (p *guestProcesses) TerminateProcessInGuest(ctx *simulator.Context, request *types.TerminateProcessInGuest) soap.HasFault {
	if fault := refused(ctx, request.Vm, request.Auth); fault != nil {
		return &methods.TerminateProcessInGuestBody{Fault_: fault}
	}
	guests.Lock()
	info := guests.processes[request.Pid]
	guests.Unlock()
	if info == nil {
		fault := &types.GuestProcessNotFound{Pid: request.Pid}
		return &methods.TerminateProcessInGuestBody{Fault_: simulator.Fault("No such process.", fault)}
	}
	_ = syscall.Kill(-int(request.Pid), syscall.SIGKILL)
	return &methods.TerminateProcessInGuestBody{Res: new(types.TerminateProcessInGuestResponse)}
}

func (f *guestFiles) CreateTemporaryDirectoryInGuest(ctx *simulator.Context, request *types.CreateTemporaryDirectoryInGuest) soap.HasFault {
	if fault := refused(ctx, request.Vm, request.Auth); fault != nil {
		return &methods.CreateTemporaryDirectoryInGuestBody{Fault_: fault}
	}
	made, err := os.MkdirTemp(request.DirectoryPath, request.Prefix+"*"+request.Suffix)
	if err != nil {
		fault := &types.FileNotFound{FileFault: types.FileFault{File: request.DirectoryPath}}
		return &methods.CreateTemporaryDirectoryInGuestBody{Fault_: simulator.Fault(err.Error(), fault)}
	}
	guests.Lock()
	defer guests.Unlock()
	guests.directories[made] = true
	return &methods.CreateTemporaryDirectoryInGuestBody{Res: &types.CreateTemporaryDirectoryInGuestResponse{Returnval: made}}
}

// DeleteDirectoryInGuest removes what was made here, and nothing else: the guest is this machine.
func (f *guestFiles) DeleteDirectoryInGuest(ctx *simulator.Context, request *types.DeleteDirectoryInGuest) soap.HasFault {
	if fault := refused(ctx, request.Vm, request.Auth); fault != nil {
		return &methods.DeleteDirectoryInGuestBody{Fault_: fault}
	}
	guests.Lock()
	defer guests.Unlock()
	if !guests.directories[request.DirectoryPath] || !request.Recursive {
		fault := &types.FileNotFound{FileFault: types.FileFault{File: request.DirectoryPath}}
		return &methods.DeleteDirectoryInGuestBody{Fault_: simulator.Fault("No such directory.", fault)}
	}
	_ = os.RemoveAll(request.DirectoryPath)
	return &methods.DeleteDirectoryInGuestBody{Res: new(types.DeleteDirectoryInGuestResponse)}
}

func (f *guestFiles) InitiateFileTransferFromGuest(ctx *simulator.Context, request *types.InitiateFileTransferFromGuest) soap.HasFault {
	if fault := refused(ctx, request.Vm, request.Auth); fault != nil {
		return &methods.InitiateFileTransferFromGuestBody{Fault_: fault}
	}
	status, err := os.Stat(request.GuestFilePath)
	if err != nil {
		fault := &types.FileNotFound{FileFault: types.FileFault{File: request.GuestFilePath}}
		return &methods.InitiateFileTransferFromGuestBody{Fault_: simulator.Fault(err.Error(), fault)}
	}
	guests.Lock()
	defer guests.Unlock()
	token := fmt.Sprintf("%d", len(guests.offers)+1)
	guests.offers[token] = request.GuestFilePath
	told := types.FileTransferInformation{
		Attributes: new(types.GuestPosixFileAttributes), Size: status.Size(), Url: "https://*/guestFile?id=1&token=" + token,
	}
	return &methods.InitiateFileTransferFromGuestBody{Res: &types.InitiateFileTransferFromGuestResponse{Returnval: told}}
}

// serveGuest sends a file once: its address ends with that.
func serveGuest(w http.ResponseWriter, request *http.Request) {
	token := request.URL.Query().Get("token")
	guests.Lock()
	path := guests.offers[token]
	guests.offers[token] = ""
	guests.Unlock()
	content, err := os.ReadFile(path)
	if path == "" || err != nil {
		http.NotFound(w, request)
		return
	}
	_, _ = w.Write(content)
}
