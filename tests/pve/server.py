# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Proxmox VE that answers as the real one does: fakepve, corrected where it is known to differ from PVE 9.2.

``test_server.py`` holds it against answers recorded from a real PVE (``recorded.json``). What fakepve lacks and was not
recorded is made from PVE's published API and source, and says "simulated".
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web
from fakepve import FakePve
from fakepve.model import FakeVm, PveError, TaskError
from fakepve.qemu import drives_of
from fakepve.server import USER, ok, params
from fakepve.shapes import PRIVILEGES

Data = dict[str, Any]
NIC = re.compile(r"net\d+$")
LACKING = ("balloon", "running-qemu", "running-machine", "diskread", "diskwrite")  # in fakepve's status, not in PVE's
TOP = ("/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms")
RUNNING = {"runningmachine": "pc-i440fx-7.2", "runningcpu": "qemu64", "running-nets-host-mtu": "net0=0"}


class Pve(FakePve):
    """One cluster. ``delays`` and ``warnings`` go by type of task (``delays`` also by "type vmid"), ``truncate`` and
    ``hang`` by the end of a path (``hang`` also by "METHOD path", whole)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.bridges = {"vmbr0", "vmbr1", "quarantine"}
        self.delays: dict[str, float] = {}
        self.warnings: dict[str, str] = {}
        self.truncate: dict[str, int] = {}
        self.hang: dict[str, float] = {}
        self.elsewhere: set[str] = set()  # ends of paths that are answered with a redirect
        self.meanwhile: dict[str, Callable[[], object]] = {}  # by the end of a path: done once, before its next call
        self.service = "running"
        self.freeze_problem = ""  # why guests do not hold their file systems still
        self.images: Callable[[str, int, str], object] = lambda verb, vmid, name: None  # takes, removes on real images
        self.links: dict[tuple[int, str], str] = {}  # QEMU's own, as they were set last, by VM and NIC
        self.storages["local"]["content"] = "iso,vztmpl,backup,images"
        self.unaskable: set[int] = set()  # VMs whose guest cannot even be asked to shut down
        self.pid = 20000
        self.max_requests = 1_000_000
        self.firewall_config("cluster")["options"]["enable"] = 1

    # Faults

    def _build_app(self) -> web.Application:
        app = super()._build_app()
        app.middlewares.append(self._spoil)
        return app

    @web.middleware
    async def _spoil(self, request: web.Request, handler: Any) -> web.StreamResponse:
        for end in [end for end in self.meanwhile if request.path.endswith(end)]:
            self.meanwhile.pop(end)()
        for end, seconds in list(self.hang.items()):
            until = time.monotonic() + seconds
            while f"{request.method} {request.path}".endswith(end) and end in self.hang and time.monotonic() < until:
                await asyncio.sleep(0.05)
        if not self.quorate and request.method != "GET" and "/firewall/" in request.path:  # simulated
            raise PveError(500, "cfs-lock 'firewall-vm' error: no quorum!")
        answer: web.Response = await handler(request)
        if any(request.path.endswith(end) for end in self.elsewhere):
            raise web.HTTPTemporaryRedirect("/elsewhere")
        for end, times in self.truncate.items():
            if times > 0 and request.path.endswith(end):
                self.truncate[end] = times - 1
                cut = web.StreamResponse(headers={"Content-Length": str(len(answer.body or b"") + 500)})
                cut.content_type = "application/json"
                await cut.prepare(request)
                await cut.write((answer.text or "")[:20].encode())
                assert request.transport is not None
                request.transport.close()
                return cut
        return answer

    async def task(self, node: str, ttype: str, tid: Any, user: str, body: Any, vm: Any = None, **more: Any) -> str:
        """Every task may last, and may end with warnings."""
        seconds = self.delays.get(f"{ttype} {tid}", self.delays.get(ttype, 0.0))

        async def longer() -> Any:
            if seconds:
                await asyncio.sleep(seconds)
            return await body()

        upid: str = await super().task(node, ttype, tid, user, longer if seconds else body, vm=vm, **more)
        if ttype in self.warnings and self.tasks[upid].get("exitstatus") == "OK":
            self.tasks[upid]["exitstatus"] = "WARNINGS: 1"
            self.tasks[upid]["log"][-1:] = [f"WARN: {self.warnings[ttype]}", "TASK WARNINGS: 1"]
        return upid

    # Power: a locked VM and one in the wrong state answer with a task that fails

    def boot(self, vm: FakeVm, qmp: str = "running") -> None:
        """A cold start: a process of its own."""
        vm.status, vm.qmpstatus, vm.started_at = "running", qmp, time.time()
        self.pid += 1
        vm.stats["pid"] = self.pid
        self.links = {key: value for key, value in self.links.items() if key[0] != vm.vmid}

    async def _failing(self, vm: FakeVm, ttype: str, user: str, why: str) -> str:
        async def body() -> None:
            raise TaskError(why)

        return await self.task(vm.node, ttype, vm.vmid, user, body, lock=False)

    async def _power(self, vm: FakeVm, user: str, p: Data, ttype: str, do: Any, running: bool) -> str:
        if p.get("skiplock") and user != "root@pam":
            raise PveError(400, "Parameter verification failed.", {"skiplock": "Only root may use this option."})
        if vm.lock and not (ttype == "qmstart" and vm.lock == "suspended"):
            return await self._failing(vm, ttype, user, f"VM is locked ({vm.lock})")
        if running and vm.status != "running":
            return await self._failing(vm, ttype, user, f"VM {vm.vmid} not running")

        async def body() -> Any:
            return await do()

        return await self.task(vm.node, ttype, vm.vmid, user, body, vm=vm)

    async def _do_start(self, vm: FakeVm, user: str, p: Data) -> str:
        async def start() -> None:
            if vm.template:
                raise TaskError("you can't start a vm if it's a template")
            if vm.status == "running":
                raise TaskError(f"VM {vm.vmid} already running")
            if vm.start_error:
                raise TaskError(vm.start_error)
            await self.pause(vm.start_secs)
            vm.apply_pending()
            self._qm_lock(vm, None)
            self.boot(vm, "prelaunch" if str(vm.config.get("freeze", 0)) == "1" else "running")

        return await self._power(vm, user, p, "qmstart", start, False)

    async def _do_stop(self, vm: FakeVm, user: str, p: Data) -> str:
        async def stop() -> None:
            await self.pause(vm.stop_secs)
            vm.status = vm.qmpstatus = "stopped"
            vm.stats.pop("pid", None)

        if str(p.get("overrule-shutdown", 0)) == "1":
            for task in self.tasklog:
                if task["type"] == "qmshutdown" and task["id"] == str(vm.vmid) and task["status"] == "running":
                    self.release(vm, task["upid"])  # the guest was asked; now it is not waited for any more
                    task.update(status="stopped", exitstatus="received interrupt", endtime=int(time.time()))
        return await self._power(vm, user, p, "qmstop", stop, False)

    async def _do_shutdown(self, vm: FakeVm, user: str, p: Data) -> str:
        async def shutdown() -> Any:
            if vm.status != "running":
                return None
            pid = vm.stats.get("pid")
            if vm.vmid in self.unaskable:
                raise TaskError("VM quit/powerdown failed")  # simulated
            try:
                return await self._powerdown(vm, p)
            finally:
                if vm.status != "running" or vm.stats.get("pid") != pid:
                    vm.stats.pop("pid", None)

        return await self._power(vm, user, p, "qmshutdown", shutdown, False)

    async def _do_suspend(self, vm: FakeVm, user: str, p: Data) -> str:
        todisk = str(p.get("todisk", 0)) == "1"

        async def suspend() -> None:
            vm.qmpstatus = "paused"
            if todisk:
                vm.status = vm.qmpstatus = "stopped"
                self._qm_lock(vm, "suspended")
                vm.config["vmstate"] = self._state_volume(vm, "suspend")

        return await self._power(vm, user, p, "qmsuspend" if todisk else "qmpause", suspend, True)

    async def _do_resume(self, vm: FakeVm, user: str, p: Data) -> str:
        async def resume() -> None:
            vm.qmpstatus = "running"

        return await self._power(vm, user, p, "qmresume", resume, True)

    def _vm_status(self, vm: FakeVm, listing: bool = False) -> Data:
        told: Data = super()._vm_status(vm, listing)
        for key in LACKING:
            told.pop(key, None)
        if vm.status == "running":
            told["pid"] = vm.stats.get("pid", told.get("pid"))
            if not listing:
                told["nics"] = {
                    f"tap{vm.vmid}i{key[3:]}": {"netin": 0, "netout": 0} for key in vm.config if NIC.match(key)
                }
        return told

    async def _status_current(self, request: web.Request) -> web.Response:
        return ok(self._vm_status(self._vm(request, "VM.Audit")))

    async def _qemu_list(self, request: web.Request) -> web.Response:
        """``full`` adds what QEMU itself says (simulated: only the plain list was recorded)."""
        node, user = request.match_info["node"], request[USER]
        full = (await params(request)).get("full") == "1"
        data = []
        for vm in self.vms:
            if vm.node == node and self.allowed(user, f"/vms/{vm.vmid}", "VM.Audit"):
                told = self._vm_status(vm, listing=True)
                data.append(dict(told, qmpstatus=vm.qmpstatus) if full else told)
        return ok(data)

    async def _resources(self, request: web.Request) -> web.Response:
        kind = request.query.get("type")
        if kind not in (None, "vm", "storage", "node", "sdn"):
            wrong = f"value '{kind}' does not have a value in the enumeration 'vm, storage, node, sdn'"
            raise PveError(400, "Parameter verification failed.", {"type": wrong})
        rows = json.loads((await super()._resources(request)).text or "")["data"]
        return ok([
            {key: row[key] for key in ("id", "vmid", "type", "status", "node")}
            if row["type"] == "qemu" and not self.nodes.get(row["node"], {}).get("online", True) else row
            for row in rows
        ])  # fmt: skip

    # Configuration: NICs change at once, plain GET config shows what is pending

    async def _config_get(self, request: web.Request) -> web.Response:
        vm = self._vm(request, "VM.Audit")
        merged = dict(vm.config)
        if request.query.get("current") != "1":
            for key, value in vm.pending.items():
                merged.pop(key) if value is None else merged.update({key: value})
        if "memory" in merged:
            merged["memory"] = str(merged["memory"])
        return ok({**merged, "digest": vm.digest()})

    async def _pending(self, request: web.Request) -> web.Response:
        answer: web.Response = await super()._pending(request)
        rows = json.loads(answer.text or "")["data"]
        vm = self._vm(request)
        return ok([*rows, {"key": "digest", "value": vm.digest()}])

    async def _apply_config(self, vm: FakeVm, user: str, p: Data) -> None:
        changes = dict(p)
        for key in [key for key in str(changes.pop("revert", "") or "").split(",") if key]:
            vm.pending.pop(key, None)
        for key, value in changes.items():
            if NIC.match(key):
                self._may_use(user, str(value), str(vm.config.get(key, "")))
        await super()._apply_config(vm, user, changes)
        if vm.status == "running":
            for key in [key for key in changes if NIC.match(key) and key in vm.pending]:
                bridge = fields(str(vm.pending[key])).get("bridge", "")
                if bridge and bridge not in self.bridges:
                    problem = f"hotplug problem - interface {bridge} does not exist\n"
                    raise PveError(400, "Parameter verification failed.", {key: problem})
                was_down, now_down = ("link_down=1" in str(one) for one in (vm.config.get(key), vm.pending[key]))
                if was_down != now_down:  # only then PVE turns to QEMU
                    self.links[vm.vmid, key] = "off" if now_down else "on"
                vm.config[key] = vm.pending.pop(key)

    def _may_use(self, user: str, *values: str) -> None:
        """Simulated: a NIC with VLANs needs the right on each of them, not on the bridge."""
        for value in values:
            told = fields(value)
            vlans = [one for one in [told.get("tag", ""), *told.get("trunks", "").split(";")] if one]
            for end in [f"/{vlan}" for vlan in vlans] or [""] if "bridge" in told else ():
                self.require(user, f"/sdn/zones/localnetwork/{told['bridge']}{end}", "SDN.Use")

    # Snapshots: RAM is a volume of its own, and its rollback lets the VM run as it was wired then

    def _state_volume(self, vm: FakeVm, name: str) -> str:
        volume = f"{vm.vmid}/vm-{vm.vmid}-state-{name}.raw"
        size = 2 * int(vm.config.get("memory", 512)) * 1048576 + 500 * 1048576
        self.storages["local"].setdefault("volumes", {})[volume] = {
            **{"content": "images", "format": "raw", "size": size, "used": size},
            **{"ctime": int(time.time()), "vmid": vm.vmid},
        }
        return "local:" + volume

    async def _qm_snapshot(self, v: Data, user: str) -> str:
        upid: str = await super()._qm_snapshot(v, user)
        vm, name = self.find(v["node"], v["vmid"]), v["snapname"]
        if self.freeze_problem and vm.status == "running" and not v.get("vmstate"):  # simulated
            why = f"guest-fsfreeze-freeze problems - VM {vm.vmid} qmp command 'guest-fsfreeze-freeze' failed"
            self.tasks[upid]["log"].insert(0, f"{why} - {self.freeze_problem}")
        if name in vm.snapshots:
            self.images("take", vm.vmid, name)
        if name in vm.snapshots and vm.snapshots[name].get("vmstate"):
            vm.snapshots[name]["vmstate"] = self._state_volume(vm, name)
            vm.snapshots[name].update(**RUNNING)
        return upid

    async def _qm_snapshot_delete(self, v: Data, user: str) -> str:
        vm = self.vm(int(v["vmid"]))
        state = vm.snapshots.get(v["snapname"], {}).get("vmstate") if vm else None
        upid: str = await super()._qm_snapshot_delete(v, user)
        if vm and v["snapname"] not in vm.snapshots:
            self.images("remove", vm.vmid, v["snapname"])
        if state and v["snapname"] not in vm.snapshots:
            self._qm_free(state)
        return upid

    async def _qm_snapshot_config_get(self, v: Data, user: str) -> Data:
        told: Data = await super()._qm_snapshot_config_get(v, user)
        return {key: value for key, value in told.items() if key != "digest"}

    async def _qm_rollback(self, v: Data, user: str) -> str:
        vm = self.find(v["node"], v["vmid"])
        newer = self._newer(vm, v["snapname"])
        if newer and any(
            self.storages[volume.split(":")[0]].get("type") in ("zfspool", "zfs")
            for _k, volume, parts in drives_of(vm.config)
            if parts.get("media") != "cdrom"
        ):
            why = f"can't rollback, '{v['snapname']}' is not most recent snapshot on 'vm-{vm.vmid}-disk-0'"  # simulated
            return await self._failing(vm, "qmrollback", user, why)
        upid: str = await super()._qm_rollback(v, user)

        async def ended() -> None:
            while self.tasks[upid]["status"] == "running":
                await asyncio.sleep(0.02)
            self._after_rollback(vm, self.tasks[upid].get("exitstatus") == "OK")

        if self.tasks[upid]["status"] == "running":
            asyncio.ensure_future(ended())
        else:
            await ended()
        return upid

    def _after_rollback(self, vm: FakeVm, fine: bool) -> None:
        if not fine:
            return
        vm.name = vm.config.get("name", vm.name)
        for key in RUNNING:
            vm.config.pop(key, None)
        vm.stats.pop("pid", None)
        if vm.config.pop("vmstate", None) or vm.status == "running":
            self.boot(vm)

    @staticmethod
    def _newer(vm: FakeVm, name: str) -> list[str]:
        return [other for other, snap in vm.snapshots.items() if snap.get("parent") == name]

    def _item(self, name: str, volname: str, vol: Data) -> Data:
        told: Data = super()._item(name, volname, vol)
        return {"parent": None, "used": told["size"], **told} if told["content"] == "images" else told

    # Privileges, agent, monitor and services

    async def _permissions(self, v: Data, user: str) -> Data:
        """What is held on the top paths is told for each of them, wherever it was granted."""
        told: Data = await super()._permissions(v, user)
        who = str(v.get("userid") or user)
        for path in TOP if v.get("path") is None else ():
            held = {privilege: 1 for privilege in sorted(PRIVILEGES) if self.allowed(who, path, privilege)}
            told.update({path: held} if held else {})
        return told

    async def _agent_call(self, match: Any, values: Data) -> Any:
        vm, command = self.find(values["node"], values["vmid"]), match.template.rsplit("/", 1)[1]
        if vm.status != "running":
            raise PveError(500, f"VM {vm.vmid} is not running")
        if vm.qmpstatus == "paused":
            raise PveError(500, "QEMU guest agent is not running")
        if command == "exec-status" and vm.agent is not None and values["pid"] not in vm.agent_execs:
            raise PveError(500, "Agent error: Invalid parameter 'pid'")
        told = await super()._agent_call(match, values)
        if command == "exec-status":
            streams = {f"{key}-data": told.pop(f"{key}-data", "") for key in ("out", "err")}
            for key, text in streams.items():
                told.update({key: text, key.replace("data", "truncated"): 0} if text else {})
            told["exited"] = int(told["exited"])
        return told

    async def _task_status(self, request: web.Request) -> web.Response:
        if request.match_info["upid"].count(":") != "UPID:node:pid:pstart:starttime:type:id:user:".count(":"):
            raise PveError(400, "Parameter verification failed.", {"upid": "unable to parse worker upid"})
        answer: web.Response = await super()._task_status(request)
        return answer

    async def _qm_destroy(self, v: Data, user: str) -> str:
        vm = self.find(v["node"], v["vmid"])
        clones = [other for other in self.vms if other is not vm and f"/base-{vm.vmid}-disk-" in str(other.config)]
        if clones:
            base = next(volume for _key, volume, _parts in drives_of(vm.config))
            why = f"base volume '{base}' is still in use by linked cloned"
            return await self._failing(vm, "qmdestroy", user, why)
        upid: str = await super()._qm_destroy(v, user)
        return upid

    async def _monitor(self, request: web.Request) -> web.Response:
        vm, user = self._vm(request), request[USER]
        command = str((await params(request)).get("command", ""))
        self.require(user, f"/vms/{vm.vmid}", "Sys.Audit" if command.startswith("info") else "Sys.Modify")
        if vm.status != "running":
            raise PveError(500, f"VM {vm.vmid} is not running")
        word, *rest = command.split()
        if word == "set_link":
            self.links[vm.vmid, rest[0]] = rest[1]
        if command == "info network":
            return ok("".join(
                f"{key}: index=0,type=nic,model=virtio-net-pci,macaddr={mac_of(value).lower()}\r\n"
                for key, value in sorted(vm.config.items()) if NIC.match(key)
            ))  # fmt: skip
        return ok("")

    def _routes_more(self) -> list[Any]:
        async def state(v: Data, user: str) -> Data:
            """Simulated: not recorded."""
            return {"name": v["service"], "service": v["service"], "desc": "", "state": self.service,
                    "active-state": "active", "unit-state": "enabled"}  # fmt: skip

        async def network(v: Data, user: str) -> list[Data]:
            """Simulated: bridges and VNets, as ``type=any_bridge`` lists them."""
            return [{"iface": name, "type": "bridge", "active": 1} for name in sorted(self.bridges)]

        return [
            ("GET", "/nodes/{node}/services/{service}/state", state),
            ("GET", "/nodes/{node}/network", network),
        ]


def fields(value: str) -> dict[str, str]:
    """The key=value parts of a property string."""
    return dict(part.split("=", 1) for part in value.split(",") if "=" in part)


def mac_of(value: str) -> str:
    return value.split(",", maxsplit=1)[0].partition("=")[2]
