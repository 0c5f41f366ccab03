// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// A vCenter (or, with -esx, a stand-alone ESXi) for tests: govmomi's simulator with what tests need besides. It counts
// SOAP calls, has faults and delays on demand, and models what the simulator leaves out (see machine.go).
//
// It prints one line of JSON on its standard output when it listens, and ends with its standard input.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
	_ "github.com/vmware/govmomi/vapi/simulator" // the REST side: tags
	"github.com/vmware/govmomi/vim25/types"
)

const apiVersion = "8.0.3.0"

func main() {
	hosts := flag.Int("hosts", 2, "hosts in the one cluster")
	vms := flag.Int("vms", 0, "virtual machines")
	opaque := flag.Int("opaque", 0, "opaque networks of NSX")
	esx := flag.Bool("esx", false, "be a stand-alone ESXi host")
	user := flag.String("user", "ir@vsphere.local", "the one user")
	password := flag.String("password", "", "and its password")
	dir := flag.String("dir", ".", "where ca.pem is written")
	kind := flag.String("certificate", "", "of another host: elsewhere; of another time: expired")
	verbose := flag.Bool("verbose", false, "log to standard error")
	flag.Parse()
	if !*verbose {
		log.SetOutput(io.Discard)
	}
	model := modelOf(*esx, *hosts, *vms, *opaque)
	if err := model.Create(); err != nil {
		fatal(err)
	}
	defer model.Remove()
	service := model.Service
	service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, *password)}
	service.RegisterEndpoints = true
	caFile := filepath.Join(*dir, "ca.pem")
	config, err := certified(caFile, *kind)
	if err != nil {
		fatal(err)
	}
	service.TLS = config
	rules := newRules()
	registry := model.Map()
	service.Context.Map.Handler = rules.handler
	connectAll(registry)
	simulator.TaskDelay = simulator.DelayConfig{MethodDelay: map[string]int{"LockHandoff": 0}}
	server := service.NewServer()
	server.Config.Handler = rules.overHTTP(server.Config.Handler, registry)
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fatal(err)
	}
	go func() { fatal(http.Serve(control, controls(rules, service))) }()
	told, _ := json.Marshal(map[string]any{
		"host": "127.0.0.1", "port": server.Listener.Addr().(*net.TCPAddr).Port,
		"control": "http://" + control.Addr().String(), "ca": caFile, "pid": os.Getpid(),
	})
	fmt.Println(string(told))
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func modelOf(esx bool, hosts, vms, opaque int) *simulator.Model {
	if esx {
		model := simulator.ESX()
		model.Machine = vms
		return model
	}
	model := simulator.VPX()
	model.ServiceContent.About.ApiVersion = apiVersion
	model.Host, model.ClusterHost = 0, hosts
	model.Machine, model.Portgroup, model.OpaqueNetwork = vms, 2, opaque
	return model
}

// connectAll plugs every cable in: the simulator leaves some of its cards disconnected.
func connectAll(registry *simulator.Registry) {
	for _, entity := range registry.All("VirtualMachine") {
		machine := entity.(*simulator.VirtualMachine)
		for _, device := range machine.Config.Hardware.Device {
			if card, ok := device.(types.BaseVirtualEthernetCard); ok {
				card.GetVirtualEthernetCard().Connectable = &types.VirtualDeviceConnectInfo{
					StartConnected: true, AllowGuestControl: true,
					Connected: machine.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn,
					Status:    "ok",
				}
			}
		}
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "vcsim:", err)
	os.Exit(1)
}
