# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a scan is believed, every engine finds planted samples: in qcow2 on raw, as a whole and by differences."""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .chain import Layer
from .engines import WINDOW, Engine
from .judge import Emit, Judge
from .scanner import DiskSpec, Scanner

_WANTED = {"yara": {"/etc/replaced", "/d/new"}, "clamd": {"/etc/replaced"}}

# Made by tests/corpus/self_test.py
_BASE = (
    "c-rmUJ!lkZ7zgloW>zsDo_8_DsZG!(A}(4U7U4w1Lj=Jh2qJ2-"
    "Hc4Dba#nh1?_F~sA~puW_Bi~)LPS9Yn<#>XpoNGQeiR;}qOLQ$iC|c@SaEMNzaP9i?<BLl`@GqIcv#p80m!SKbR3+T?@UKmI-"
    ";2u^wbWS`(yD?2$jl~=TY^#+Ih|N^E#$Zdeg(&IE0}>2%C2O_U`J%^@}F{IncN6^2W{0sCD0|@OS^=jn9s~|K(^gnK+)k-"
    "p)_z`qq2f^XXnrDWpGKJj>ok^F^uU?0>j=L6RO9rej$(|6L&oh3fA{Zohog75;i)mtgj)RQkf(<m2hV3XmIdwFi#kVtTC2<G5I?_3+)HJsvKPj"
    "jz~U{(aA2tyjLDBynkcz&}oCVQH4{m9IsU9W(O(IH~0ynBDn5GxDk}oBx;C56D~oZ){unPX0mu0r>~yACP}Q{sH+1<R6fKK>mT&%YSF6|NWo&)"
    "p;QrDUT2Skj^KQdC_QT@9@rn(xBag*3bVRr!MU2FAWcrM@q$ZTLQUL>C5f`0OZjq008j6=aUNn00000000000079J`(yFY^!Q$DjxK3_-"
    "A{i_9}4yAFI4Y`6vDjfWBZFJyX>Q=_Oym<>J6bM+}ben?~s@G-1Z;yow?KJ@?HO%Kl5FG@0EPlzx#E*>wkMV-}V1{HsAH{c-"
    "8#Za4GA5R@Li&;_&kq`k(B+k#ibcd)=|D|5@{-nf=e_`@i_B{ohXwu6<;AR{zbD&8+|Ap%B{Y_W#jW>+foC?X7pR`j?()cKzo&>eoN_3-"
    "xEWOzv)Q?W8TMzw>Th`+ooc000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000003xp9{^eN)hY"
)
_TOP = (
    "c-"
    "rmVPiPcZ9KiA4%xopbRo6fD52YCYK@!>37R7&uX3cJN)x>RfYqS+>Ox7yNCNW8y_MoJPiU$S3QbZIqh~iC3RS+wpsL&p&2k|0SJoVt8gC49Jr}"
    "JiZYm6HstT<-"
    "p`w4IU?(+8cX5R9fVdv%Zs@PKzF~qUcDwD0^x7T#Z(wy0x%xa*|wn6!<(w1Gh^F#R`s=oI6u9sdkyEEOU%H~hoyShGU+B$n<eMc&^CH;*60000"
    "0fVZQBCIA2c005wnX#@NL00000fP&F&Pb+8$0000001E#4Kc1Oy7+`-}X5O8d@9DSyP-cFD1_b~B00000-XkTFy@x0AwKyYtYW-hO@?wOL+Z}q"
    "7h-oGsI1dT^ZLd4B?;DX>DYa%xbde^XNcF~8@8xq<lY35V`z&%{Mcj>8zdI&-"
    ">vpZUzyJBdeIcXgfcm`t%)Y*HyuG$9$@w6a&)PVpz|NzQbfqEZr%T68HSq5^t4z21e?WZpaJ?cEzi$o%<a&x$0t%ODn)1x}f3@2L;2FA|18aIn"
    "oZ<fcqU)iMlf#dfV!gSwqjT1#)^A%Hom|;3hMwwdkkQuiSwqts`3ePw9IG$iI$F1=Vno0G|BvDHe*lHu|4*hL4_C{N4B7+mTL1rZU9gw_577Ss"
    "c(4EaCHMWmk@m7rOSg75j<S}o8bw-rs;#-cA;m2}paA;+_G4#S>Qc=Ot?5*#m?i-"
    "{$29HV008iyHS<<YjnAwI$G@7pF8<}3d2>tS>&xa>R+i1*HX|CV4A%w|$#6|1TpJ07Ym%|mvDz;Z!DKX%3|7TfMyJkLHfvcq-"
    "=e_KG<tyRfAt)|O~cSyQe89>P=MF}2a0z89s&RWcmu1e>(u>#SWUDx8BBz$<13>iQ~&?~00000006*yM2&x&E$^z%_K)0;`(D_Z_;SVnf&F_(k"
    "s^Cq{7}n`jOx&wx8-H*4mC#b^9B8ngICVE^#O19x!+EEJN_rTy&Zq)MQ_Ky>0fWh|7@4H<Nx)Px8vXN*!|CNUgbY?a^*j|OnOcJ<F_-"
    "U{6zMv{Acl9H}ju?^FMvi{BKO2b^lVP;=gvp&G?V}C^9@}{;v%h|JXe1UVB5uKkcyF@khk@zb4u8rty!@v+jevD*o#q_uY2erSt#Q_y<4#Kg_f"
    "4@}E`we@$^Ses%np7Ue$v!(J1=8Zv7_o^_wvtKwgN#m)Euc-Mbh7(*l"
)


def open_images() -> tuple[Layer, ...]:
    """The overlay and its base, in memory."""
    return tuple(
        Layer("(self-test %s)" % name, kind, _in_memory(name, text))
        for name, kind, text in (("overlay", "qcow2", _TOP), ("base", "raw", _BASE))
    )


def _in_memory(name: str, text: str) -> int:
    data = zlib.decompress(base64.b85decode(text))
    fd = os.memfd_create(name)
    os.pwrite(fd, data, 0)
    return fd


def passes(engines: Sequence[Engine], images: tuple[Layer, ...], emit: Emit) -> bool:
    """Scan the images by the very path that a VM's disk takes; tell why nothing can be believed, if so."""
    whole = DiskSpec("self-test", images)
    scanner = Scanner(Judge([], lambda _kind, _body: None, WINDOW), indexing=True)
    scanner.run([DiskSpec("self-test", images[1:])])
    by_differences = replace(whole, base=images[1:], index=scanner.index)
    for engine in engines:
        wanted = _WANTED[engine.name]
        for how, spec in (("as a whole", whole), ("by its differences", by_differences)):
            found: set[str] = set()
            missed = _missed(engine, spec, found, wanted)
            if missed:
                told = "The self-test failed: %s did not find the planted samples in a disk scanned %s (%s)."
                emit("reason", {"text": told % (engine.name, how, missed)})
                return False
    return True


def _missed(engine: Engine, spec: DiskSpec, found: set[str], wanted: set[str]) -> str:
    reasons: list[str] = []

    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.add(body["path"])
        elif kind == "reason":
            reasons.append(body["text"])

    with engine.testing():
        Scanner(Judge([engine], take, WINDOW)).run([spec])
    if reasons:
        return reasons[0].rstrip(".")
    return "" if wanted <= found else "found %s" % (", ".join(sorted(found)) or "nothing")
