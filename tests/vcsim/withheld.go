// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"slices"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// withholding answers as the collector does, but for one property of one machine (by name), which it cannot read; and
// not more at once than a page holds, as vCenter does with answers that are too large for it. Of a machine in a vApp it
// tells that one instead of a folder.
type withholding struct {
	*simulator.PropertyCollector
	struck *fault
	page   int
}

func (r *rules) withheld(ctx *simulator.Context, target mo.Reference, method string) mo.Reference {
	collector, ok := target.(*simulator.PropertyCollector)
	if !ok || method != "RetrievePropertiesEx" {
		return nil
	}
	struck := r.strike(method, anyMachine, func(f *fault) bool { return f.Withhold != "" })
	r.mutex.Lock()
	defer r.mutex.Unlock()
	if struck != nil || r.page > 0 || len(ctx.Map.All("VirtualApp")) > 0 {
		return &withholding{collector, struck, r.page}
	}
	return nil
}

func (w *withholding) RetrievePropertiesEx(ctx *simulator.Context, request *types.RetrievePropertiesEx) soap.HasFault {
	if w.page > 0 {
		request.Options.MaxObjects = int32(w.page)
	}
	answer := w.PropertyCollector.RetrievePropertiesEx(ctx, request)
	body, ok := answer.(*methods.RetrievePropertiesExBody)
	if !ok || body.Res == nil || body.Res.Returnval == nil {
		return answer
	}
	inVApps(ctx, request.SpecSet, body.Res.Returnval.Objects)
	if w.struck == nil {
		return answer
	}
	for i, object := range body.Res.Returnval.Objects {
		named := false
		var left []types.DynamicProperty
		for _, property := range object.PropSet {
			named = named || property.Name == "name" && property.Val == w.struck.VM
			if property.Name != w.struck.Withhold {
				left = append(left, property)
			}
		}
		if named && len(left) < len(object.PropSet) {
			why := types.LocalizedMethodFault{Fault: faultOf(w.struck.Fault, object.Obj), LocalizedMessage: w.struck.Fault}
			body.Res.Returnval.Objects[i].PropSet = left
			body.Res.Returnval.Objects[i].MissingSet = []types.MissingProperty{{Path: w.struck.Withhold, Fault: why}}
		}
	}
	return body
}

func inVApps(ctx *simulator.Context, wanted []types.PropertyFilterSpec, objects []types.ObjectContent) {
	for i, object := range objects {
		machine, ok := ctx.Map.Get(object.Obj).(*simulator.VirtualMachine)
		if !ok || machine.ResourcePool == nil || machine.ResourcePool.Type != "VirtualApp" {
			continue
		}
		var left []types.DynamicProperty
		for _, property := range object.PropSet {
			if property.Name != "parent" {
				left = append(left, property)
			}
		}
		if asksFor(wanted, "parentVApp") {
			left = append(left, types.DynamicProperty{Name: "parentVApp", Val: *machine.ResourcePool})
		}
		objects[i].PropSet = left
	}
}

func asksFor(wanted []types.PropertyFilterSpec, path string) bool {
	for _, filter := range wanted {
		for _, set := range filter.PropSet {
			if slices.Contains(set.PathSet, path) {
				return true
			}
		}
	}
	return false
}
