# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real, small disk images of the simulated hypervisor, made without root: a scan of them is a real scan.

Where mkfs.ext4, debugfs and qemu-img exist a disk is ext4 in a qcow2 overlay on a base; else it is a raw file without a
filesystem, which no scan can call clean.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping

from .._errors import TaskFailed, Unsupported
from .._model import Layer

SIZE = 16 * 1024 * 1024
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def tool(name: str) -> str | None:
    return shutil.which(name, path=PATH)


def complete() -> bool:
    """Are the tools for real images here?"""
    return all(tool(name) for name in ("mkfs.ext4", "debugfs", "qemu-img"))


def call(name: str, *arguments: str) -> None:
    program = tool(name)
    if program is None:
        raise Unsupported("Cannot work on the simulated disk: %s is missing. Install it." % name)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TaskFailed("Cannot work on the simulated disk: %s: %s" % (name, done.stderr.strip()[-300:]))


def create_base(path: str, files: Mapping[str, bytes]) -> Layer:
    """A filesystem that holds these files: the golden image."""
    if not complete():
        with open(path, "wb") as image:
            image.write(b"".join(files.values()))
            image.truncate(SIZE)
        return Layer(path, "raw")
    with tempfile.TemporaryDirectory() as scratch:
        raw, tree = os.path.join(scratch, "raw"), os.path.join(scratch, "tree")
        for name, content in files.items():
            target = os.path.join(tree, name.lstrip("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as stream:
                stream.write(content)
        with open(raw, "wb") as image:
            image.truncate(SIZE)
        call("mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", tree, raw)
        call("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path)
    return Layer(path, "qcow2")


def create_overlay(path: str, base: Layer) -> tuple[Layer, ...]:
    """An empty disk on top of a base; answers its whole chain."""
    if not complete():
        copy(base.path, path)
        return (Layer(path, base.format),)
    call("qemu-img", "create", "-q", "-f", "qcow2", "-F", base.format, "-b", base.path, path)
    return Layer(path, "qcow2"), base


def plant(layers: tuple[Layer, ...], files: Mapping[str, bytes]) -> None:
    """Write files into a disk as a guest would; what is kept in it stays."""
    top = layers[0]
    if len(layers) == 1:
        with open(top.path, "r+b") as image:
            image.write(b"".join(files.values()))
        return
    with tempfile.TemporaryDirectory() as scratch:
        raw = os.path.join(scratch, "raw")
        call("qemu-img", "convert", "-f", top.format, "-O", "raw", top.path, raw)
        commands = ""
        for number, (name, content) in enumerate(files.items()):
            source = os.path.join(scratch, str(number))
            with open(source, "wb") as stream:
                stream.write(content)
            directory, _slash, base_name = name.rpartition("/")
            commands += "cd %s\nwrite %s %s\n" % (directory or "/", source, base_name)
        script = os.path.join(scratch, "script")
        with open(script, "w", encoding="utf-8") as stream:
            stream.write(commands)
        call("debugfs", "-w", "-f", script, raw)
        call("qemu-img", "convert", "-n", "-f", "raw", "-O", "qcow2", raw, top.path)


def export(layers: tuple[Layer, ...], path: str) -> None:
    """One disk, whole chain deep, as a new sparse qcow2."""
    if os.path.exists(path):
        raise TaskFailed("Cannot export to %s: it exists already." % path)
    call("qemu-img", "convert", "-f", layers[0].format, "-O", "qcow2", layers[0].path, path)


def keep(layer: Layer, name: str) -> None:
    """Keep the present content under a name: inside a qcow2 file, beside any other."""
    if layer.format == "qcow2":
        call("qemu-img", "snapshot", "-c", name, layer.path)
    else:
        copy(layer.path, "%s.%s" % (layer.path, name))


def bring_back(layer: Layer, name: str) -> None:
    """Give an image the content back that is kept under a name."""
    if layer.format == "qcow2":
        call("qemu-img", "snapshot", "-a", name, layer.path)
    else:
        copy("%s.%s" % (layer.path, name), layer.path)


def forget(layer: Layer, name: str) -> None:
    """Give up what is kept under a name."""
    if layer.format == "qcow2":
        call("qemu-img", "snapshot", "-d", name, layer.path)
    else:
        remove("%s.%s" % (layer.path, name))


def copy(source: str, target: str) -> None:
    shutil.copyfile(source, target)


def remove(path: str) -> None:
    if os.path.exists(path):
        os.unlink(path)
