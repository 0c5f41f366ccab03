// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import "github.com/vmware/govmomi/vim25/types"

type tree = []types.VirtualMachineSnapshotTree

func grafted(list tree, parent types.ManagedObjectReference, leaf types.VirtualMachineSnapshotTree) tree {
	var out tree
	for _, node := range list {
		node.ChildSnapshotList = grafted(node.ChildSnapshotList, parent, leaf)
		if node.Snapshot == parent {
			node.ChildSnapshotList = append(node.ChildSnapshotList, leaf)
		}
		out = append(out, node)
	}
	return out
}

func pruned(list tree, gone types.ManagedObjectReference) tree {
	var out tree
	for _, node := range list {
		node.ChildSnapshotList = pruned(node.ChildSnapshotList, gone)
		if node.Snapshot == gone {
			out = append(out, node.ChildSnapshotList...)
		} else {
			out = append(out, node)
		}
	}
	return out
}

func parentOf(list tree, child types.ManagedObjectReference) *types.ManagedObjectReference {
	for _, node := range list {
		for _, below := range node.ChildSnapshotList {
			if below.Snapshot == child {
				found := node.Snapshot
				return &found
			}
		}
		if found := parentOf(node.ChildSnapshotList, child); found != nil {
			return found
		}
	}
	return nil
}

func stateOf(list tree, wanted types.ManagedObjectReference) types.VirtualMachinePowerState {
	for _, node := range list {
		if node.Snapshot == wanted {
			return node.State
		}
		if found := stateOf(node.ChildSnapshotList, wanted); found != "" {
			return found
		}
	}
	return ""
}
