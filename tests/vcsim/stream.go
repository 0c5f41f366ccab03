// Copyright: vmward contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
)

const (
	sector   = 512
	grain    = 128 // sectors
	perTable = 512 // grains
	atTheEnd = ^uint64(0)
)

// streamed writes a disk as vSphere exports it, a stream-optimized VMDK (after "Virtual Disk Format 5.0"): grains that
// hold something, the table after each 512 grains, the directory, the footer, the end.
func streamed(w io.Writer, content []byte, size int64) error {
	out := &counting{Writer: w}
	descriptor := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"+
		"createType=\"streamOptimized\"\nRDONLY %d SPARSE \"disk.vmdk\"\n", size/sector)
	out.put(header(size, atTheEnd))
	out.put(padded([]byte(descriptor), sector*(grain-1)))
	var directory, table []uint32
	grains := (size + grain*sector - 1) / (grain * sector)
	for number := int64(0); number < grains; number++ {
		place := uint32(0)
		if data := part(content, number*grain*sector, grain*sector); len(bytes.Trim(data, "\x00")) > 0 {
			place = uint32(out.done / sector)
			var packed bytes.Buffer
			writer := zlib.NewWriter(&packed)
			_, _ = writer.Write(data)
			_ = writer.Close()
			out.put(padded(append(little(uint64(number*grain), uint32(packed.Len())), packed.Bytes()...), 0))
		}
		if table = append(table, place); len(table) == perTable || number == grains-1 {
			directory = append(directory, out.table(1, table, perTable))
			table = nil
		}
	}
	place := out.table(2, directory, 0)
	out.put(padded(little(uint64(1), uint32(0), uint32(3)), 0))
	out.put(header(size, uint64(place)))
	out.put(make([]byte, sector))
	return out.failure
}

type counting struct {
	io.Writer
	done    int64
	failure error
}

func (c *counting) put(data []byte) {
	if c.failure == nil {
		_, c.failure = c.Write(data)
		c.done += int64(len(data))
	}
}

// table writes a marker and a table of so many entries at least; answers the sector where the table begins, 0 for an
// empty one.
func (c *counting) table(kind uint32, entries []uint32, least int) uint32 {
	empty := kind == 1
	for _, entry := range entries {
		empty = empty && entry == 0
	}
	if empty {
		return 0
	}
	text := make([]byte, max(least, len(entries))*4)
	for i, entry := range entries {
		binary.LittleEndian.PutUint32(text[i*4:], entry)
	}
	text = padded(text, 0)
	c.put(padded(little(uint64(len(text)/sector), uint32(0), kind), 0))
	place := uint32(c.done / sector)
	c.put(text)
	return place
}

func header(size int64, directory uint64) []byte {
	return padded(little([]byte("KDMV"), uint32(3), uint32(0x30001), uint64(size/sector), uint64(grain), uint64(1), uint64(1),
		uint32(perTable), uint64(0), directory, uint64(grain), byte(0), []byte("\n \r\n"), uint16(1)), sector)
}

func little(values ...any) []byte {
	var out bytes.Buffer
	for _, value := range values {
		_ = binary.Write(&out, binary.LittleEndian, value)
	}
	return out.Bytes()
}

// padded fills data up to so many bytes, or to whole sectors.
func padded(data []byte, size int) []byte {
	size = max(size, (len(data)+sector-1)/sector*sector)
	return append(data, make([]byte, size-len(data))...)
}

// part is a piece of content, filled up with zeros.
func part(content []byte, offset, size int64) []byte {
	if offset >= int64(len(content)) {
		return make([]byte, size)
	}
	return padded(append([]byte(nil), content[offset:min(offset+size, int64(len(content)))]...), int(size))
}
