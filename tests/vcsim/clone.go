// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"

	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// clone copies deeply, by way of XML.
func clone(from, to any) {
	text, err := xml.Marshal(from)
	if err == nil {
		decoder := xml.NewDecoder(bytes.NewReader(text))
		decoder.TypeFunc = types.TypeFunc()
		err = decoder.Decode(to)
	}
	if err != nil {
		panic(err)
	}
}

type devicesOnly struct {
	Device []types.BaseVirtualDevice `xml:"device,typeattr"`
}
