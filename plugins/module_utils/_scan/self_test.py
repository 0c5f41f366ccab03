# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a scan is believed, every engine finds planted samples: in every file system that has a proof of its own.

In ext on qcow2 on raw, as a whole and by differences; in FAT, XFS and NTFS on raw; in ext on LVM, in VMDK and in VHDX;
and in archives.
"""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .blocks import Meter
from .chain import Layer
from .engines import WINDOW, Content, Engine, eicar
from .frames import MISSING
from .inside import Archives
from .judge import Emit, Judge, Where
from .scanner import DiskSpec, Scanner

_INSIDE = {"a.tar!/gz!/", "a.tar!/bz2!/", "a.tar!/xz!/", "a.tar!/zip!/sample"}
_INSIDE |= {"a.tar!/cpio!/sample", "a.tar!/rpm!/payload!/sample", "a.tar!/lzip!/"}
_INSIDE |= {"a.tar!/%s!/" % kind for kind in ("zstd", "lz4", "legacy lz4") if kind not in MISSING}
_LZMA = [{"id": lzma.FILTER_LZMA1, "dict_size": 4096}]
_WANTED = {"yara": {"/etc/replaced", "/d/new"}, "clamd": {"/etc/replaced"}}

# Made by tests/corpus/self_test.py
_BASE = (
    "c-rlpO=uHA7>2+7F}6ulG_4|4G-"
    "_x|Eun~rXfax=c(9_aSn=mjll0QmXpMRhG#)%CMWht<A|BL>;9dL)dQwE%+(f}bdnmnBL2E!z;>>QM5m$Ri=x+19PgpXu`I(t_zkTy%lNlnFNG"
    "I|WQIbr0#O4#5LIwEE&7Z3-Z}#>PWwTwM6ytej-6a1yPp;A^?%G5%eWIP$bo^P$+kW-"
    "#or%v)A4B`e2G(X)r!rf1+`d1aNwsz)$7O%3{uozj@r#>cv0oQE>&PLvO7~V?0`raZhYp=8h%`~Ik>`lv13ppLjmO6Z)qs!APeQ3Or%Jkdh`wv"
    "T_9U}_6;v%_0I-"
    "gMMI<vrVF!vDq<mRbgF!Q|t0lJ@i=R%c>y4i|5i#?pSDL0q6JdC0x!{8YjMIRzhrL}##ffg5?}a`vrI|hen6MNQaQ1<7ZysExWoCUwgC=aLg9M"
    "y?pz_DXQ?vp;z@C+mfV~g+;REbh0}0ssKmb0#o_a{Y-Uk}t1MF#n1nhmF89u-"
    "s{5Aw1Xn_x~XFVif?*kj)1MJxd3E2C<Cinn*HbVmTKF|suV9!=az}^S8!3WsW1_{{vK)X42$ZDRE*C^{se>@SX7Ui^7p$tS%#(Kih2ox+Mc0mH"
    "pKJe5vH9@<Hx}&jhygwRrLl&OwA<Bj@_n7s(<Gnck>|<ab(Ewl#bs`4X$G`!^0Q(p?h!|iW1BVa;>|@|CVqo4LyHYXuyC~P`%x`mbdE%@C<~vS"
    "rCu6<VzsIi|*Um{U;wW%`QF1FcnkeSWio#Pb*D`ImP`Ga{^*6X?um0Ii-"
    "k0c>e04x4uG`!Ekx||;aOIK%Ix%E#^Dm$9j)7w%4(P<Nz0KFm@Q#5Oj~&p78${1#PSj$R6REjn%dB%E`M-k&MK-"
    "Sv%baNBy`4GHzjH!$)|_y0k!`0N<oE+aw&sMli0+Bcq)N;01<I@%6uZpns&`U@w>Rz7K#u>B$9nv(|BPS${jRpiws$U+<Nr2o=lFjDFoDF)"
)
_TOP = (
    "c-mt)zyJn;Zl1q^6f=a!&;i7fK+FT?F)_dZBZM-5as`mY2m%%$E`V_!Rcf6A*;kZUj-p7vB)0&BlM{224NHtl^^+2dQ}r@)(-"
    "}qqO@RQ6p)eX2BNZrsb2D~03PuJ17VQmShQnxBj8xzNO9KH=IsrooM7#h>H$dqLXz~l7^oG$e9cmy1QXMovx$)2@0wa2Tp@3*HNbB%sGcf%BAN"
    "(FtVL<pO4MzrUC`SWGIRV?1*}zueDTbuI`*>Zt7SDh5N$Z_`;6Qj+`J3XtZ`RIpmp=Tq&&IdmAtSu;i|P;RRkaFOD^(Vtp!{G-"
    "17XxNigz?e4LMNqGyNq)1f)|a49X+mazFsskz)bNFHx9rS%5(yVKk(MIfwz3>i-"
    "%3Fe9q>|D#|;0fsnm8W;s5ISnL0h5~sQ7@71KU~DEPJv~UfPK1GrDJQ?UL_00NG%p3xe&S(ZW=btdX5a_1_b@XurHq!QLmMQG2Ej-"
    "L!2EnK<y*!Xh7?GCM=l3mFhk0LQ7}S4+Gr4r<Z__=%&Jy~3<&=V^JtiiSdcXu1S7c|;QU)($dEHy4vct^HyQ*Zz8okREeA$CC>jld5nm3Jz{dV"
    "C#|e4CY!=4c{E`$tAo~I{2V+rcK~7?F>gdqmZ~|qcK`@fbfjw+59x+rfFodV(B<JU*>T!(*%g6*Zpn1d5xx*1XZ&)`P|06yPG%zqknEERQs5&?"
    "XM4Q9}L`9gIXavM*nmapdn%AnhdOAA>=>~^5`nfm;x#&9jg?NT}289OehPVcY=(>6OxGJi6XnSal7N|oQv@n3z0buJFfYz4YVP<B`OD!J_r{N6"
    "RMuT7^_Y2}y-Zup8F4P+ZBN{Mtji!MSp9XqH)4+&N1AU`uV8o|^3FM`LFyC-cU(wUgH7G<k*wHt@$91%kHB`YG1QWF14u<JAU7<AaLGad*0eng"
    "ZrvF)?M{sa}Nv_X~&>dJ1zzESs5eVr3?MdY3Ll&cF_=CZ^feruvK_fd0ihdmgju_yr;?d_vb{gnx90ZQoG_ckm-"
    "#xO^K<v3e;D{{)YrXK7k(~w(?ivJ+*v7zc0MsTjz}6;WVvxYoCgK6NnkWNIQ$TH^bGHVvO@zBm$V9MBC`h5*7t}%iSD7@RZNeQ43`>A@5+~Mv0"
    "VBaM5Tej}`J13HxITR#!vN%e7c%`XLZRI~GeQ2>^dHbPu#2*MAWEV2)*nD&VC*~4X~3NWdm3QF<A2anY%vP$Uj7~A|7}wT(*FQe`8HJ"
)
_FAT = (
    "c-mvQ#4rkm1z-"
    "eX4j@h>LvQFR1_1_!*ESQ9Dityk^HLNTm>3lp7#)C8KN#Vv5=R4h7z1D$2mnU+|Njgh{sRFP6%CBSK=Q+X$pXgF;2N$Vh=IW|m7#<o8OZ+spP!"
    "-ZKN0{5{r~S8;;aA#0?1kw8JNMeV+sRAAxOU?rhXR%1swWWM#FzFfEZvL7BQqU6foof3w?eDr(_@p7O4<2$Th&n(b*Lom8fyZ%HT2@f<qs~0n<"
    "PpFxtzZ<v=ZFKK64Bhi7EeG$6v@&M_K<LmnhBFhrR8D+Z`KI0i(U!~{e|n3`w=#A%v4J8PQPs<?VOI|k_nhdBDVI0m`sI{JlphIs~s2J42n28Z"
    "andHT32s(5I7XpIKs5C%0240@wrL<5Gp(KImP(?AP(X&}ru98@=W`nd*$=mtCb2Kcy+mZ?J(w2hVnBfcEy7)=8s9RL8{X8o`"
)
_XFS = (
    "c-rmV3s4kw9KiAa-"
    "H~B3X{DxZnv9wnQKkqnR&pF1obovD5YIOXCz%gOF)T7qGDpEzXhvk_1AIToXCb1Mm6K+SI;LsrWJ8u&rjDhUw0pM;dYm`M&wl?r_<d(~{&%}`e"
    "`jt#``<fYM#h+miCOgKaK@T3N6J{!{L@Q|%GJ>&1&92D&t~-PDDS?<F$iJusFg=?E@@u-"
    "JSxXN&44XMYNlq)_vU&18aLMXG1gjsD$m10<)it`eZEf5#eYkc<Jjyq7PltSgD+;>cTF68809+g#8|XZ`kM1qeeTpX@2zsoKKeK|zXjqp&yA7)"
    "z0J9)Wpsi)$j5HL;AB9$CN=WDQ0ZE)qN<#&cgiR|SNq+pzGhTjW1x{_Kp*4odJZZ+TOqv%B8#EoHcZ@-"
    "#BDgKs2@p}y*9kNbPrco?{m7}y0UTVIr9wBL5jn^CSAENP+nL&y8)dG1I^qS2+69LOa|&nT^Tco2&DU$lYv(53|!QFn&<dV5Ed%G%tmjfmnNP?"
    "y}_k{cJ2)99TIbu4Ahg1jNLe2QdaYQP|cja3)+)ysET)&mpAZtOjY}u@N)j9>T~V8M!fRJ^`pz8;e93yW|kiD{>F}BTH~Og!N!4>9zmUrL%W3N"
    "bX`IwcZf9Tw5C9Ff;KKfYl;Ze#w8dM4W@qPz=TM1LZIFd6Y1X}Iw1N9dLzC0Ghr}$ifYiYZe*ar8wer;4c<U78EEhZo`o4mjO{OdMl{4lni2xd"
    "+E`;uBz?B>)@;Gd5T`w_QPukWS9NW^vD(MrlFoBSlm^(8Q9k^Li&@n-Kaqa6FsgazyRPPDwf_!)-"
    "8#Pz=KOtJZQrY5N!E;H@v)#&vGf$_0WpM?Eg7&ejr!J~gWTRg_yuKjGpqXM^DP-TcDn5gu6*3yfHJ?Jy<7i2q24sDt_Ji+mC*wO)$2fzv0`!E3"
    "@Gyp;bZ{0=`QaD>f0MgoTQBM;g+5lc)Uef3;C(WGXu)}g3j51%6>2KWl7_$>0^c`TT{dxLIj;ka5E$WQwu#`2WEFxM)`1r(`!_&3|O+RKUueRK"
    "$%~NaJLSO3G<@A*STBEsp~qhZ<R92had1{9cWr9_||P5Q05mRU9SV;XTovTOlb+w(^<T;X4Q2axRI`m@+pk+WF1iLF}14OI-txi=-"
    "sXZNwf~!adRXCwJ*;9GReT|{M>=CR|`?}nGm^od<>-"
    "R8k7e#5KRV<%j08UMe(q$Km!IcfZPH;2L4%MJ^?h)n+zbgkdJ|&jr}Wu2KtZz<ns9#=ws`1KhQu789=UpkAdvD@m+uhV#xq<i})Bg_Mt8eXdsR"
    "ZAh(#0foAifQh^5I$pCUo_!uZ$(eyCTfRPL!w~UX0v8$V00vhN`29PV{V<7mGdkcUDOk@DL6?_a-ZPV-o8ZeUq<W})9V0-"
    "VeXrO@vGJxC~J_Za6g*2dneq;c-"
    "b$kpwIQ`*9Km&<n0J#l(3>=^NkU!8se=>kvF&_hMHhlgI(13*uAh(H+fx}C`Ish~<fD9nFg^z)`AMINSG%%11Ah(T=0e#uGHlTq)WB|F3`4|X&"
    "`_M$7fx%<|xe`7GE-e1e1T-*&3?Ns^$H3Y-"
    "$9n<|3?&1|mGLn!V(O_!fd+<=0pxb`G0^Rul@_3ZBr<^9XM7A)7A&6vG%%bDAh(B)fh9Q`TLKM?AOpyK$;ZH`x7I!bG>}XNklV}0K+84T_W%u~"
    "kOAbr=40Sg(dIKi16DGC+<ra=rfuDo12iy_3?O%akAc{d9qWMxQpo^v<$Mg}elXe!H1HxBK<*$P1L1jT;XnhU$N+MO`50)Oog4r(@Ddq7?g$?P"
    "<+D@$fCfgB0pyPIF|cu2)>WW^F=PO_@A()Qxqiw?pn<Vu0J#%<3_QPc!gip6aby6wlY9(Z-joUae^7-"
    "qGJxD^J_f?3^=c0^kWL1W`;m`<nYlfEfCgSB1IYcv$H2k&L&gFPj3)!gRq!z&Ea=`FXkY>vK<+Fb11US6-UT#}K?acfm5+h-"
    "TLSWd1}2gL<bLC0;7VbqKY<2bAp^+$&c{Hnwe61p4P=r5<Sy_raCO$Dwm<`u$N+K|`55T>=3k*e1Fw<+<Sz3uFnWHa5oq8wGJxC_J_eR8s>%c!"
    "$RY#C{msX~51Y?q0}Z@R29UeP$3XMapNoJ7CX)f=uJbVvzwX?Apn*5Y0CG3@7?{5Nk8?l+Q^){r{{kkTi!}"
)
_NTFS = (
    "c-rmV4{TI*f(P*5doyi^0%fQ@tSkqwy)IW-"
    "==Kni;}H9QTT;r{4!s`7vMsjQVr{!^*9F6IjWLEL#x%wy#JFx_jNu3|#3hEfhHH#xh!I1KF@~Tah8P0I5Mu~2q`lw!+xOngw0+PPneX>khWF;p"
    "^!@q0&+j|G_nR3ILKAwq);Qb{uW8a`5vn50a#M)ML{!*iNdAm3GUqjG*?5*YRpl)rZ;$?E{cjIny>Y+3EN8`;-"
    "yb+pI664L`Bcu|v&6aRu4~uVUOu<v+ymFf;+<Usn*7t#JE*m3yL)>F+je(%Xzg7CPnBq~?vA#B4y~(aprhaO@Sg78zP|lhTTlDK?7sevfdM(YU"
    "wf)!zc$#b4fe}No^0#t(Mn26w1wG%WtwICas7mjj|<~$E@FjXmNFq~>guaYMaWsC$e#`Jc2v)V@WfN?*-UGyr$nnUmv8)C>&#7FGN-"
    "v~rSjJ4tX~ydj5$SQ7|Z0}H|ncKhQ3l#PP?rYb$hoP4i$;5qDI7>j5GIL(JMnJ&i4O2QAK81Z9NwCPIHf#(Rk9co=~!?o(N8>{@l~Wia9qf%iI"
    "BwwNk-mfL)}4s?<5q;>&@M)k@T<a$t(~nKTEK<T=pi%7Mn9IpAw(_I4vq4r~=&qF??@o(Ea}b{tJUEr^&sq`7U!cUt7xtYJ&QE~)|Fp9AV7IiT"
    "K4IpFMkI3Wk>MXz{LHh?bKS?HJ|2gVg&4*1q<PYZ>b6}cC4U<+FUd=Atn=0M2GfwR6G$aH0aoddP594Nib9Psx46%h;E-"
    "jiQ<WXbm4EZcjx_=9*_w)U9S*6mzrceWTF(vQQwPRKJJU1uF<p7^VhD-?4p8M)T)8_UcmWat+Knw)n($N!kHGBe-Ve%P7Qv#!{=mmwDTuCGGML"
    "{3foe#n`-"
    "v)qw8*T9wlp98VP90*%EFq&k1AUsPsa7VBE_NZWXV*kHf49cH=dHK^J_E^ikc@Ua*9{fop=7F&+U>>CEcZB`dAKA&L1sSF4%w2!TRW-"
    "6Dz~?|bF$Xe?90-{W-q#<<a4niD2jcY|o~gZjWs)3db@d0T?z}%>T(K*m5~tlyv^&*#Uc}$-a;@ROsCQa0Z-"
    "wzo!}8W*G*~k~HVE^*lOj<k9+F2<YPagBx$da-I$!L&?8*0yB92)5sD#U`8upG$)J`!jVQ;@6QmoqJmBr3}hK+r3@29;lW{$|S+02%JUBU)ze-"
    "30?{ef7L@qx@a9v^VOUl90uL7j*@|MfzJ=#u?}r$w9WiKKdc7XF-2lTQnjhiCBh`7XQ`>|jfP?+@%u%z-"
    "Q`2TmusF36ho@c~sIvIy4RHETthx4mZ=?Y&q24F0UI2NwDBMoT_j9Cg2r&!B-"
    "_Yzgo=(3+S75i1AwCCPz^xLfZRgl^;gg5=|e5hEYkWDZmsV~7L7Y**fKIMtaO^7Pv$Ry(%H*KZ$N;hhS*-"
    ")?SAwLXaT^XfOq<J`@b0G|Wxi8(OO$bos{m~VU_!+2~)azIOnfhn&GX5@VY&Au*Z5*^|RnF0NB>TTz$r+Pf?Ts14>mhevXwN=Smp`xx=t#O2tu"
    "5pB6=lWcKUhTwCglimO$my%-$Czgwzd3^Oc+uaC`mv|>^A5;co&51X|9WodrXE-JRQR6n9&S+egWO~8^N4FqVaT=5_U}Y}``qW`wBBnn_o3JZl"
    "Vbb+=cPI>?>^qE*If5d4s<5wK=ve`C(OQU;{&1F$N}$#ynB3LyA)h0U!@1E97y`P0e^oz#Q;H}P#y`p`u!rq>`!Rcc%42z*CQKSudlnmpz9Y;{"
    "qf+%3;yGtTl4Z5_Od0w=RkL24$QaSFBno2#|h`pQVz^fe;{h-K(*K>24x2H$PSVIT4-"
    "JaneA8q{FEjpe;=S$F>iW#zzVWf>y7yN_TK^bZ>1FxnR5TO$<F#-x&3yhc4v0|kITN0K5o*cpUoa2mRj5BwBAI#({1S2UX8MT`{Wk-jkNU^zRv"
    "&5a-"
    "c6U2lUUe==}jL$@>KhW?`K0ZhyYVJ1(F&a~MWtCG@i;z~{hVVh${vBnK8U2hz{LGi(X)Ij}D=2XZFKfgI*Q`WbkZEdf3U4kYHlqDgXK5py8@3>"
    ";)jfX{)U#2knkIUvL#;mrYM;<sir2RK%Amkm6}T7Wn3d}0nPW)5H(c!9M5Z{Sd34&*WiunZh#Ex;RiF);`3V-"
    "8>$c!{+DZ(ukv2lAK$SO#8ZEx;RiB{2v7fjNL>;0S90-oVks99Y5}z%uYEYXRQCYl%5<KXU-"
    "f!0W69cmpG;{@wD0qR;m|qp)y)GynF#XSDJ*zjxdq%<mb^?DuTU@7(S)s>A$VqyBG?=}*+Z?PHh4)&WOc`DcG0S+gps*!qXU5<aV>cn{eAj*Y("
    "E>&|vnao*YP<DTcbw>xUx%yFDjtKP#-POHNA)lI7|#(l+O;0=9UWyZZ0*Y}2lt}EGRwEV}+%>S9@z?-"
    "RaAlbiL{y>`KfcyJ=dV7qy+GA;w9JtTd9yO785cj5axyNs@CBWyvvD7)xnj{C7&T$U(xpJU!hH@a)cVbiLL1P-"
    "{f!x#MYzgo=a3Wa_nBxOwzVQLQ{KAz3?Bk`0fwx%;@CHr>%YkLgf%G%*4r>A4z^Pz4@Q=)a^fT}-"
    "YXRQC>0mjqoH>ww2Hs;Wz#Di!SPraU4y2!fGpq%81EaxmKw}Q1pMeip3-AU$43+~0%z^YX@DXbP-oV*lIZ((PNIwG~vlieDd=e}N{)st|eg-"
    "~eEx;Q%A1nuom;>o&;4{_&yn)Yy<-"
    "jkQ1L<er3)TX>fiHvQz)I#o`Wd*uT7WljF<1`#GjkyQ41CR6fH!a{SPm332hz{LH>?GC1DAv4z=O<z^fT}+YXRQCm0&rriaC&e2ClLe;0=5iEC"
    "+tY97sO{-?J9r4O|bF1FM+>>1W^v)&jhNAA{w<8s<Ry8Mwh(fH!b6SPqmh2hz{LPpk!a1Gj?Zz^|DD>1SY!wE%BGw)!ABP|6%gKLe`5YCty-"
    "4weJ|!W>9H1DVVLcmt7OIk1*FkbVZTnFH_!76i+IhnNHDXCQ|;0B;}~EC<#x2hz_#E^`3hKwhvMc$hhmeg>8>2jC6l2g`x=%z^YXu#`CfZ(v!l"
    "9C(B|kbVZ1GY8-eXu)z|19Kq#3=}d4;0+W7%YlDo4y2!fmCONn1I58|U?X!N{S2&P4!|2&9V`d_jX98h21=L%@CHhQ<-"
    "jK9K>8V2%N&3=ur62*JjxtMKLhKT1Mmhm1j~WV%z^YXu#q_cZ(vif9C(a5kbVX>GY8-"
    "elqJgnMdm<AL{x7Mgsp7Iu<l3Yt=6?R{of|Ym$zS6bX1KDeWm<gjdyA<*L-"
    "`S|6Z$eFJ!DUU+#msoeXDvsiyv;(#&0xYw8e#;t3Ix^PR4vi&^`ri11LJF#pd+z3AVaP|T3a(DzYO6Yr~HnURwslqbfO6+%&*=oG{9cG{?@e4}"
    "oUn)@QxUnd@tM_Fn=QSM#Ds=q_lO)urvsyaoZF;`~YKWf!q&KB>~UT&X*s)^$_N<{R_8t4<<qD|I9hiLcJQ`Fc?S<4j)Gab4}168SVKoO%#Vh)"
    "r~BL}8(n=A+VTshEa<$%8(q?*<y=0M7Jpzq&Y<-(9B-&CWW>f32~cw0g2mu2O#|6I2-"
    "wxi|Yb;Yq=4?a>^`QRh}Ra9M9S>Cv&DPG=CRo+;&ro16u*Id`Qy=hInx+%U!KT`!owZE!eHFNzjc{Xd<AArw++SL7ln@Mt@Vj4NHtln&&YJ+!b"
    "FQ2MEQ040n*uR%*nyNpb$d<3S%em|i9CP&t4o#y!u+O^brP5kei&d)?*8Qtn&Es4j^G@yMBHR4^-"
    "$cAQ7!o}){r>2C{rBgGtmQ4t0r(uKPu(9lnj{A*r;!6wxt;EHfxjK3n%eEa-yg8s!Cb!n*BW=qT%#xxRaj;(@U>feT9A>I?S7q~o4&d{n+?nX_"
    "#D_AHrs=2)LPVBnrAAGnmqGO@4ogR=I0wxkg!~M+DAsN{`dSm^SSP2@_GNO+~+)RzVkfgl4qIR{{M(v&-"
    "M!@wm*`voF#Z^2q#_aK40E*$C7p>78Z34RV~G0Ucy8A|7kiTqvFaU^Zq>XRnixZu=Te+zGe64#f^IN^*Yrw+xz;MX<yfeibS~>lt2CQ8lgk%v0"
    "ic`)>VJt?f8m&I~Af$UOiNbZt({(U@XnD9?z70lvuFss1w7l?(Jk5+v$?W^R(PrpWK4EomNpFZ2g+I!(*>M!&rZ>{27#6=@w>w&Y$M~%k$nC7L"
    "(Lf)INr4c?B~l&qt4}G1WTI;O8RjQR6-r_3{Xw6g9>%bWC)!jA^Ub5^Ou&)~|MZ>nbd_vsG>*?yT86HaqS0M_rv_-*K4h-"
    "ztxzU;daJ=2<N$u&KoJq1or7N!HR6(ycxUmTfhp;On>cE*^H^y4`M<UMr>A0lAHk)ytlNV{q2rEYG>#_MVpOx7XKVjd=UlAGgK<>}jg?ue8SnL"
    "M5K-YyWzu8o!uqyum$=Z(qmz-`7a>KFL(?Yxu9@=cY&l&0)SCLKkVEg$Cda?4SX713PH|-"
    "oP#zfH%+@7W$P&Twakk$o_M=yiTeTzY}%xUX9o$?`@UK;`07Bxny=q)HSd7xl65i`@M)FV-MnTU+QFEf4iKkmU~z)?=?Bsd9ztG*Zh!ce%vZWv"
    "Zm_f{^)zvAoq2voSVy1>YCTDh3wB0Rj79TZIjEl$i1qR^`)QND(?z*&wdV+rI@#e0Ca=;{%tqTa$Nj}+|Mexq)9H*m&D|<ZPqpXtPGP)d5)Xq_"
    "Uq;TZM`e!xz$&HYC`>a_b+h!ZNGB^eZGBMV9hUZ+HsY!FXeYB?S@h;pE$>LMg~^PEB@cfn%gFS;&Zrv!ztQG^8G89XS-hRVdc!_^PZ^<j7-"
    "^1Dvb84tBc)*b9{2j{cDu<7c*Yxnv9kblQpN;>)f2_(NrGG>^4#@_ib)pe?6r$EYACO%X&N8nVS1}_sXS|k0{pu>Fwe-"
    "@~7J9%WOC5uiklGX)^i})kcEPN>Nf}&OP$J{NAu^FN)J<Cdy-"
    "h;&y!2%YV<>OT``U+M;{<!eB^rhsE{W&`mel1H$}_jovSBv6h*iDOhLqNAkp<^!M~V?<wb-"
    "%cl4oPU7bcgm}E@Z^pWY0&M@UO5*m7Ww)_?_|hGr0rWDqDA4B#^^)nju5Y#K-"
    "@cyDpT;IL16=oZI_p=BcaYtmH=e2YkcWi(bAS_#;m`iQ`fBU3sCSxs#2i96=~+)G^)<5U9T%~ui<PL;mz_HRnZ6Mk7Q7-2sL_-"
    ";(BjL1kkv}msd8Y7_L(_F-`br6eXbm644MN0KI<`A9%T93aWwg~ATpjc_wD#ji~fJzG6%4W{(s#j=72g$4ygB14g~t_TIw7aSNvmm;iS_-"
    "p=L$y#T<w*2jFucJ23}BRt}u?<v^w@3+x=Ib>%?mZRUWt|8IW}NSX1^EykR2JTq6?#l-iG^y7%%>2;|4^Y}@wL0g@g%6BR@-"
    "^#jT=U#^KK8ySMDx^&0)Wq+HoVh#89sU2hWe&jSKu%PQvp^RSr2%*YxikQ8Add#%4J@Gncmw$~0B>L^4Zs^%Mg#B$meT;d0gVRW4HVJ<yn!Mbf"
    "H$y`2H*`8(*V4IRWtx^U^NZE8z`Xxcmt(00B>L|4Zs^%M+5K%*3$sIfekbOZ(t)0z#G^^1Mmhm(*V4IG8%w4P(cIm2C8TP-arivz#FKg0eAyjX"
    "aL?oJq^GcXrKXj12GzaH_%7}@CM>E0B@j~2H*{}&;Y!F9W(%MU?&a08`wny@CI6G0N%iE8h|&@P6O};_Rs*lfleBLH?Wrm;0<)s0K9=78h|&@M"
    "+5K%`e^{(z#t948+e8W;0^4f0eAz?(g3`H12h0{;2;ga8yKPicmvPT0K9?cX#n293p4<4;1CVK8#qh@@CII_0eAy1(Ez-GVH$up@G=d+8+e5V;"
    "0+w10eAyPX#n29t26*_;58b6H}E<Qz#AB$0eAy%&;Y!FH)#Ogz*{r`Z{QdWz#BMD1Mmh;&;Y!Fw`l<0z)2c_H}DP(z#BM41Mmjkr2%*Yr)dD*z"
    "<V?RZ{U3zfH!c42H*{h(g3`H4`=}1z=t#dZ{Q;ufH!cK2H*{ROat%+KA{141E10Wyn*vH0B_(k8h|(OISs%Y_<{!D4SY!h@CGi>0K9>VGyrelY"
    "Z`zzaES)s4SYib@CGi^0K9>3X#n296&ipyaFqt&4SYuf@CLr80eAz~X#n294>SO8;71yOH*kXn;0@fQ0eAyH(Ez-"
    "GTQmS~V2lRf4T!}wfNnsg0eAyp8h|&DNdxc(A~XPRAe#o@4J@Dmcmp{!0B;~l1MmiNX#n0p9u2@7SV9Bv2J&eD-"
    "oR2CfH$y=2H*`WrvZ2a8V$f3D5L>+14T3dZ(t=2z#Ay00eAzeXaL^8Y8rqyP(lOn21;oF-oRQKfH$y?2H*{>rvZ2a8)yLDz(yK?H?WBY;0<i10"
    "eAytGyrd)f(GCXRM7yuff^csH&9Ch@CLTf0K9>E8h|&@Km+gwVl)76ppgdP4a8{x-"
    "as=Az#C|x0eAyDXaL^8P8xtWu!{!Z4Ybk#yn)>`0B@k32H*|sp#gXUoiqS%U@r~88|bD1cmq8&0B@j=2H*|!(*V4IK^lNJ@C*&W8`wt!@CKfx0"
    "eAxkXaL^8K^lNJFhm3J2A-"
    "n<cmvPV0K9=0XaL^8AsT=;aF_<*4ZKJL@CII@0eAz$GyrelWg37t@CpsU8#qD(@CJ_30K9=$X#n29Ycv3F;B^{+H!wm2@CM$X0eAy%(g3`Hw`c"
    "&~z%d$tH*lN=;0>Ih0eAy%(*V4IlQaNt;2j!(H*ksu;0?S>1Mmh;(*V4I_h<m#!22`+Z{Q3Kz#AB)0eAx+&;Y!F4`~42z(+IyZ{REqz#I6O2H*"
    "{RLIdyyKBWP81LtV~-"
    "oR%x0B_)P8h|(O1r5L(_>u<T4P2lBcmo${0N%jYGyrel5)Hr`_=X1H4P2%Hcmv<k0K9=KGyrelDh<FJ_>KnP4SY`n@CL5a0K9=8XaL^8k2C;p;"
    "06uA8@NdW@CJUO0eAzqXaL^87!AN15V<sfZa}30cmrV?fH#my1MmhSGyrcPn+D(wET92+135GRZy-to@CI^e0Ny|z4Zs^%LIdyy@@W9xz)~83H"
    "?WKb;0-LN0eAx%4Zs^HqycyXMKl0!U?mN}8z`m$cmu0w0N%iA8h|%YLIdyyN@)Pzz*-"
    "uBH?WQd;0>&&0eAx&XaL^8MjC)Ou!#oX4Q!?XcmriL0B@jz2H*`;(Ez-G8XAB%P)h^w2DZ=uyn%WefH%-"
    "U1Mmi7Gyrd)kp|!m#AyKDKr;=%8)%^ccmq3V0N%h(8h|&jiw58gw9){)f!#C!Z=jt9;0^4d0eAzQGyrd4FAcyO=%xX913feVZ=jC`;0^TC0K9="
    "g8h|(O3=O~=*hd5K2A-"
    "t>cmoG$0N%hs8h|%2L<8^!o}&SH1JBa{ynz>J0N%hM8h|%&m<HetyhsD^24128cmu;U0B_)B8h|(O3Jt&;I6?#P29DAIyn$C~0N%iBGyrelbsB"
    "&-"
    "FhT?H2Hv0ncmr?J0K9>>XaL^8F&cn3aGVC<4V<6>cmr?K0K9>dGyrel9U6c)aEb=t4ZKSO@CHuP0K9?sXaL^8`!oP=;0z7G8yKYlcmp5M0K9<@"
    "X#n29M>GI$;4BTm8~B(8;0=621Mmhur2%*Y=V<`mz-Kf7Z{TwpfH&|34Zs`tk_O-nT%ZAX0~cuk-oV#10B_(D4Zs`th6dmbT&4kd1K-"
    "jByn!n;0B_(b4Zs`tjt1Zjd`|=L2CmZpyn!ER0N%ilGyrel1`WU)xJd)>27aOecmua+0N%hD4Zs@^_t5~l0hI>e4TNa`-"
    "asY|z#E9r0K9>08h|&jfCk_V<j?@TfhY~Y8_1;rcmsJf0B>Lk4Zs`7rvZ2aOKAY!z%m+uH?W)r;0<Ur0B@j>2H*`8(Ez-Gl{5fvpqK{W4XmO8c"
    "mu0x0Ny|e4Zs^Hr2%*YYiR)9z&aX$H?W=t;0<h`0eAx&X#n29CK`Y@u$czn4V2LUynzZDfHzP@1MmiFXaL?oEe*gM*g^yF2I^@5-"
    "arElz#E9s0K9=l8h|$trvZ2a%`^aSpoIqD4eX!+cmq3W0N%hZ8h|&@N(1l)cGCd7fp!{zH?W5W;0<)r0K9>{Gyrd)n+D(w^w0pjfj%05H_%T5@"
    "CF8H0N%heGyrd49}U18c$Nm>4IH2WcmoG%0N%h54Zs_Cjt1ZjJWm7g240{6cms!M0N%i18h|(OA`QSBc!>t!4Ghx&yn&Z#0N%hWGyrel2o1m+I"
    "7$QX241BBcmuD|0K9?MX#n292o1m+c!LJu4ZKMM@CM$Z0eAz)XaL^8aT<U(aDoQl4ZKYQ@CHuO0K9>BXaL^8DH?z`@GcF&8#qk^@CM$a0eA!N("
    "*V4IGc*8iV3Y>n4SYZY@CH7l0eAx+(Ez-Gvorv2;A0wqH}DA!z#I6K2H*{xrvZ2apV0ukfzN3G-oO_$0B_(+8h|%&fd=3WT%-"
    "Yb17Fhsyn#zJ0B_(M8h|%&nFinud`koH2CmQmyn(AU0B_(s8h|(OJq^GcxK0D`27aIccmqGu0K9=4GyrelCJn$F_=yJK4cwvucmrcJ0B=C#(Ez"
    "#ul?LDqglPcYKqd{q8;H;Vyn$>QfH$y!2H*|k<cSg%=pv#t0B<0d2H*|k(Ez-GCAVjwdF#KIH&(5wYp8CFuW2gZ8mq4sEca*`TOqDB4mZSWnlx"
    "F2s#wc!3h|hTI!_ytKjVwcdCgijo@Gu|d5g%~qkmcd+rw9H+^;XoS#jp~2Tl}@4$f~rmGk#3aW1;++V!=U&n-Fkz_qb>XV-ux|Mc_@YHix?-"
    "rm8s-Q68pd)L5IC0eYzqivu=>*^Wk==VIlr@ObWZ@<>o)4njfufJnpK+f*hp6b}I4fbk-{qm6~+q!x*2~=B{%@aG_vi<n~1EI%T*Z"
)
_VMDK = (
    "c-rlq-"
    "*4Mg6vxj^Le+U~DO)>D8)9x+pzYeIY16b~D=e*38qszk32n8FGB3Vcqo#35ypBE~$^#N0gwQl#AfY{M2*Dq~1B?oukkB+H@qj=Gv^|Xneh5Yp5"
    "-9lE8Kfg@(lX6W&-"
    "q4<?R)L`o|AJwJ=f}W09+vSh%z?8%(YwWFslfb?A6s>Xeg}3DUF5AZLs=SkmOnkNEIjZJ8hPgRBl#QcrKYu%^P}lIF;to0?+1BdS<{c4MmiJpu"
    "d~<clD^!yqe`1Llhk@NJ?h8YVgG3JRk7R=@~tpGG<cAxOrrbdnKt^4nJj>=g3;&0_LYmu}QhRHz>!Wp;$aDdo{BGzJ)n$);c~h!wXGP4OJdgb6"
    "jdxltD?-v_rmyRMt4Erbi|x>;}pMvNzzhs*Z4djvLuUUve>>%4lZ2sO-9?a)zs#RpAd_Q<LLK(|W5e*kjkJnmTXrtT0X#r!;Pt8@is(6}6z-"
    "ALtA8_XGod-pcC+?EqV-"
    "C*W2`5z9$96#&>yUcjv&aR9wM4CJER{t0ubFB%V6lI=w<>~8O<odw9}<3BO$ID3EfIAUXAr`22yntA7}2jDX}^wDyy^5W@Jmwsvg@u5eZFt>T7"
    "X?bPW&|7a`Tv^^dwscXnw`P@Hw^p+GVx`><JJw1JRIyw3QMJ^gDo(~9N4|$@X5AOqEc%GWfqL+mFQGH?$uH_bK1iNg=c-"
    "{Q)${PD`=64fJPDPc&WZsN<`}4F)*a&-"
    "U@o71+tA#0xqLo5uWJCwmDY2{&cpiAjArLgHQ;t}BMEn!+h^U(r4dalTbmg90Bafm@U6Boa}FAq)!&ObaM^8hfP_R_hy$28aO~WB&%stZ2Clft"
    "Cup^eIDnZ08~%FcNw}LhfL`|y2hejsCJvyNmpFi)11-"
    "b>^tz8YfSv=b!~yhbCk~+JKnHOEy?n$0^c?6S4xm>zaR5CB0>lCI3K9p<bD*C%fL;#}2hek1H*o;H9wZK+=fED~0D27)2hejsVTHLv|D9)4Yi)"
    "bjoNj1!=Jo}5HOun(w3_5JwP-zQm^gr$181u)UxE<^lRTZ&=eUoaD~D90V%{;(++)o1j>l>4Ir<ogGMMV!+Z4TbPbj)Sa3H#GsyEOYoo?$J8fx"
    "o%x+NSL3dK6(iO{$biYc9;@kC@I5_>G(nFz-dox_pQa8t|3&XINkY6UC7tmg=n8W)IXQ+?xhvkX5*ep=6(pm71_al!Pv-"
    "}zyRfsce*u#aK@eGD9+7(gEb(-Z^fW8mP;#lXbaq!=qk#>25hXFN0(9Su{GRjGRE-"
    "*JI>UhmcAc3pnK>%0qo2$^r5Qug0b_@$R>>s|Vl6`tT~i`l1@H#C1<Jkxk%U2)m%^uMK-ogEwIW4OCu<8N!A5wAEK1N%S69Rn{sy9OF@+}RlT^"
    "h4Y+@c8*P(1;Vx#=zz)xMSdx57s~<USsgF$ceg2<wP#ndYzo8#>$$?lk0@YiOzrRWKQ(|Iic%@IpJMpUi-rR!v2=yj^>0X8JscyCT%D=E?_tG!"
    "KN}VzvC<6gD+oq(g(tR<tFWKD0f))hOobFucI;WCM&BSG?sb!T|WyS^o%(j0}of1j)AJ{*f0JSyWHOeeCKyz|NE~xY5(6os;5Z"
)
_VHDX = (
    "c-rlqZA?>F7{{Ns&=e?85Dn7}igXT;b_ghQn9b4_%0{7-3IwIdXaOV8p%u17v&(!5Zi^w#Ij19wQ#Zv=gM|<$Y-3r-"
    "m@qOwY%Xp?mu#42!#FINo3i^-"
    "kZRF|8vAmdUvlZa=iGAdIsKpieV&GM0017)G}W44s@_y*DFhAZU>!)I2{J$dsqB^th`+;wT1%z*<7GX<mI*~VQ!>)Nvvu1AWk>he#rTk0zuQly"
    "_6})B^ZL71|6+>yXx|Q3zXL$x*bv`?&uZYuPL281IW+LkWOP}$QlmdQ^m4)AWLpbrz~2zS7E8^hox|2-"
    "zN4hNxnCY{hpcvUgz3o5=R`n19XPnpSor?-*V}RqKi_k!q#`i9wE-Z-"
    "sUGn)0#F0QBY`?=jpck<<M{MP%>(Dx>$>vT?IPtPM|uUO?$wJA-g%1IvbBoU22hS-snh!rZ<l}s%$2rE><EI1LH{N@E989pwud8Rk^=P>TP62A"
    "2y}TyM$OT|RX0?+uI{v}9qQjUGwKns(Ikf~>%@~whMKgU5#@c~XHN8p9Q8s+{prZTzF#}zHE)i85i|+|*%G>5GOPZvPn9j!Q$aara;~MFym7ih"
    "O4kR>svpoE8!A^fs^9(UN~@vp%VOCb^@zKypf_sfy8?z$b>Z$k-"
    ">P=)+4XflbbXM;7W1*E{5LhE*eHHl1r?4A&nc#ta@%x<xFk80_JXOYqH!L39(U}VON2NM66lvKT0fiVfjbB<^!A0SUpw~R<!ecQK3nLC=EmFO`"
    "s|si_7j)veQR{oCFXv`PVIWINI~i{KMJ4=W4%QK!Uq=%gyM+uIc$H|TmcaU0(yS|Ge%e+kkHRs?n!@Kdg#0aq#LoP{2VbwyZRLTE0`&vrVyflF"
    "jfNy$r_MQY{)ML9$(=I|HZ)PD->K@7X`umI_p;3@@nh01~V5wi9x`(*s36$-"
    "ajkg@y+O_zD*>4KSXR80PvI9UV9FrD0aNh_JJ`0=K}~KEJ7b3*$0}>b?k;{P6HDH>=R;Hj6OiJ4+PzOr4b%QA0VC>^a0|1K#D#<JWJ6Bi1z^*`"
    "T+4PLmwdC2NKW+h$jhsfOsEBMjs#^1^NK-K9GVwKs>4F1H}74I{E<dtU@0k-"
    "UpsSA0VEm(Fch4fi>s@#PbaL0P#Ms7JYztvd{;J_W?EKm^*a$Jfl!{KY&+nwVA`{{SkqPx5e^eU1gO8rxy7W+2{i#`@mV@*k#aCP-"
    "3a8vesJ^!PqTilE=(D2Aq3L^1S1GoO@2Z2J{q^t}KYtKfYF}U!T4~Usk#@Jwb0u%uuNkGj_-"
    "{xhkbWUSw3}tCa?|T$yjoEzUKpE0P;EMMimcZk{Gird_U0LPPaoj1;?$fUCTKS)1yjK)`FTG-E&cGsTz}kenBoPW`+BN-"
    "0nvL<4200pc~V0X0Cp227{{;x({wei|s&l`y$tZobA~lou&=`aBH=S-"
    "#2}xAOvKz252VVO_pyspq@k4<)dRu;1POK*v(uBKBwSU%Z*M+8KBNPRH{~&0Co@jYGm_mp#n>XW8f3+;GZ3_7Gfn-3xA_&9fR<{|(t1*xTX-"
    "H?iNd8W{M5Yz>qTd%;Z{@T>+FOpvXC&(C<lO&p})GbScVaTOEsA^ILMkr?Ls?>GM+{sAT?8venPG11&HA^*NHVT7C49(jUkzihupW5Poe9H*a2"
    "K`!$G-hKNZ(#^}qUSRs*ySF{r2Tc3b^K5^VyJ^`wO#2fHJgR}ilw0Fqp_`Y_yvp=Jn$FW2$Pu~LfbbseXZ{p>k(<~4aFS_%_gkK9|9=hG?{E"
)
_LVM = (
    "c-rk;-"
    "*4MQ96u*z>b$g=t(_)7%ym0xyC!o>yA3wR+$L=!rD;e)TJ=}vC2khYiL=DbTFOLum;?wRGz}O?hzEuc`~f_`sKyf#n#QC(AbtqcJq?M$1fvKER"
    "PN46n?gvXWt!98eXQ7bXP@u;{oeOJ{+^XH06YK|06bE+%QNV8F~GpLSL?&@4Df^oI(SiR7uNtl_rc&mN#sx8ycbYZ5MaMtT)6Qpk2`#Nv`gBR7"
    "QL;9m|}fqF%CcFj;BXc6V!kk09ygb#`sw_9_63lg=`GLUUC<U32a6=k<?&?c6L%rCuAMfRkMi>fp6sFNuw;TC1sV(=(0YQf#*jBzboJ#aY@}Cm"
    "(a$;oa98uA-_B562{p{RgU57##v=rSCV=-"
    "6Msg51s!7Nel{Ubht(|1i8z_cB^6zc%DNnmXsNi8!DVdf*i0rKk=1ZkQ>PNJbe2tJ#bp%@?y{HMiK4(pm25nM+86e~<eqF)M9THYlRB>@)tN%Y"
    "B#&pXM+#!iRw)82=C$Y)AKS~OlrXH8*7I7yd_<c{>e!N};Kr(2>|e5{HBDa@9%WS3uBs(=sw%9udZC?RBIFLZS4j%$Ad^FBGfFIh?7kvWuB08d"
    "kL3;<J%jC>>!g*7^_dhlS4L0AQ%V#Gff9wc!v$C@R)Bp1r4iY2tT@^l`93A7q-9-+@<(TQnb(z!&ax3LiCRL{gdl8{?=@U5giXZvrM0P)z-"
    "E<n26`NB2iiRoflcW~fgtl^0=n0jz|RUS9rMLd#o?#<TrL~VJp!1*Yk1?Af9gNbR&yMHrKP|x48G3D8_3t&lFKy1LpOYO9Ipc43vl$)`5Na-"
    "@4j>G*Vdn(e98=U8y6eq7Z3Ej{ocaj{K0{_1thO+m0ouiJlvRKW`~74E5!#kad+%iHFQL+JLrGLegxGVu)_2<G)6EFaG(lq2<Q28S0PIrp_ba<"
    "uyK&pm%v}v<&wE23ZejNu@6v?>;oK!r~Nj-SRA=m05)K;I2=Y?R|i;&s%7-ulQ6=M8u612SS^Yk0qCv41uJ8TQZ`-"
    "Z?*}+)15(2P0KShd9=inUI6U49dEmO$-~kFku$}S%$vklK(ub$P4#Nj-"
    "S*cBk#r>2ANalgfe?NBuJV<$fcsxXTfOsC@DGv}2f${+HJkUgWfOtGid4PBxXr??sJX$Fa5YGc`ln021gYp3JJRnjYARZl*2Z-"
    "l^PRawsV=v_a;(1^{<pJXHIOPH2dEg-"
    "B0pf9p@&NHXaG3G{@#v;JKs*mPx!l^J|E@Et!Raa{q3O|Dn7(4IX3|PZl_LsWTC|bSOL>4~9=NdS`ZdtcfgweWXbHtZztTY{JZRl9plgpwUU%%"
    "JYtM=I0Urm3y9OJ4yADgf(atg7$Z%I@vu~nhUr$fVzEe#ucaP+^2ZEB<Dfyjt$s2Ts-2SHn_Mj^ewD-C_u7;-m-"
    "TkeUP}ebn9R7|#v3UWC7QeGvnWS=(+G!&rMCS!0&kH6#_@NyPbHG7CG{6Y;0pfjNjQRlaJ}^OjfOsD`a(g}y8W=)zMYq@G584CLfY0NiLDqW3%"
    "PaE&^u6Bv?`}1p70frm4GHe5is^q(?sNUsc+dXE<i6l)fHA6-"
    "H#L6&ebabLZDHBnv_Hlx=FSb5{A3To`rj)+h*!<^fzdC?_JJ3luK*#=nCk<de?qnoj9;z*A<mlX1KVzq?E{~ETmeG7&Vh?4CK8LqL>924L`-"
    "DEQB!%aoJBFw<!{W4iT*z(w5%Bu-dASZR~|w7H=QvxCOpT1^YEFpx#+xrS<?nv%WQt<*T@E6y<w&ekp9lw)W5FWY1x}d|CT{hec&ywtZ`6ZX7d"
    "MbA{#t9V73qRRTuYxO(pb4f5qNjX4~)of%O0AH8b`92k1^YdH"
)
_OTHERS = {
    "FAT": ("raw", _FAT),
    "XFS": ("raw", _XFS),
    "NTFS": ("raw", _NTFS),
    "ext on LVM": ("raw", _LVM),
    "ext in VMDK": ("vmdk", _VMDK),
    "ext in VHDX": ("vhdx", _VHDX),
}


def open_images() -> tuple[Layer, ...]:
    """In memory: the overlay, its base, and the others in their order."""
    images = (("overlay", "qcow2", _TOP), ("base", "raw", _BASE), *((name, *_OTHERS[name]) for name in _OTHERS))
    return tuple(Layer("(self-test %s)" % name, kind, _in_memory(name, text)) for name, kind, text in images)


def _in_memory(name: str, text: str) -> int:
    """Those sectors that are not empty, each behind its number; before them the size of all."""
    data = zlib.decompress(base64.b85decode(text))
    fd = os.memfd_create(name)
    os.ftruncate(fd, struct.unpack_from("<I", data)[0])
    for at in range(4, len(data), 516):
        os.pwrite(fd, data[at + 4 : at + 516], struct.unpack_from("<I", data, at)[0])
    return fd


def passes(engines: Sequence[Engine], images: tuple[Layer, ...], emit: Emit) -> bool:
    """Scan the images by the very path that a VM's disk takes; tell why nothing can be believed, if so."""
    read = Meter.bytes
    specs = _specs(images)
    for engine in engines:
        wanted = _WANTED[engine.name]
        for how, spec in specs.items():
            found: set[str] = set()
            missed = _missed(engine, spec, found, wanted)
            if missed:
                told = "The self-test failed: %s did not find the planted samples in a disk scanned %s (%s)."
                emit("reason", {"text": told % (engine.name, how, missed)})
                return False
    Meter.bytes = read  # these images are no disks of the VM
    return see_inside(engines, emit)


def see_inside(engines: Sequence[Engine], emit: Emit) -> bool:
    """Whether samples in an archive, each packed in another way, are found by what does not unpack by itself."""
    sample = _archive()
    for engine in engines:
        found: set[str] = set()

        judge = Judge([engine], _noting(found), WINDOW, archives=Archives())
        content = Content(len(sample), lambda at, length: sample[at : at + length], WINDOW)
        with engine.testing():
            judge.file(Where("self-test", 0), content, lambda: "a.tar")
        if not getattr(engine, "unpacks", False) and not found >= _INSIDE:
            told = "The self-test failed: %s did not find the planted samples in an archive (found %s)."
            emit("reason", {"text": told % (engine.name, ", ".join(sorted(found)) or "nothing")})
            return False
    return True


def _noting(found: set[str]) -> Emit:
    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.add(body["path"])

    return take


def _archive() -> bytes:
    """A tar that holds one of each other format."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sample", eicar())
    packed = {"gz": gzip.compress(eicar(), 1), "bz2": bz2.compress(eicar(), 1), "xz": lzma.compress(eicar(), preset=0)}
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, data in {**packed, **_others(), "zip": zipped.getvalue()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tarred.getvalue()


def _others() -> dict[str, bytes]:
    """What Python can't write: an rpm of no tags around a cpio, and frames that hold their data as they are."""
    sample, size = eicar(), len(eicar())
    cpio = b"".join(
        b"070701"
        + b"".join(b"%08x" % number for number in (0, mode, *[0] * 4, len(data), *[0] * 4, len(name), 0))
        + name
        + data
        for mode, name, data in ((0o100644, b"sample".ljust(10, b"\0"), sample), (0, b"TRAILER!!!\0", b""))
    )
    return {
        "cpio": cpio,
        "lzip": b"LZIP\1\x0c" + lzma.compress(sample, lzma.FORMAT_RAW, filters=_LZMA) + bytes(20),
        "rpm": b"\xed\xab\xee\xdb".ljust(96, b"\0") + (b"\x8e\xad\xe8\1" + bytes(12)) * 2 + cpio,
        "zstd": b"\x28\xb5\x2f\xfd\x20%c" % size + (size << 3 | 1).to_bytes(3, "little") + sample,
        "lz4": b"\x04\x22\x4d\x18\x60\x40\x82" + struct.pack("<I", size | 1 << 31) + sample + bytes(4),
        "legacy lz4": b"\x02\x21\x4c\x18" + struct.pack("<I", size + 2) + b"\xf0%c" % (size - 15) + sample,
    }


def _specs(images: tuple[Layer, ...]) -> dict[str, DiskSpec]:
    overlay, base, *others = images
    whole = DiskSpec("self-test", (overlay, base))
    scanner = Scanner(Judge([], lambda _kind, _body: None, WINDOW), indexing=True)
    scanner.run([DiskSpec("self-test", (base,))])
    specs = {"as a whole": whole, "by its differences": replace(whole, base=(base,), index=scanner.index)}
    for name, image in zip(_OTHERS, others):
        specs["as %s" % name] = DiskSpec("self-test", (image,))
    return specs


def _missed(engine: Engine, spec: DiskSpec, found: set[str], wanted: set[str]) -> str:
    reasons: list[str] = []

    def take(kind: str, body: dict[str, Any]) -> None:
        if kind == "finding":
            found.add(body["path"])
        elif kind == "reason":
            reasons.append(body["text"])

    with engine.testing():
        Scanner(Judge([engine], take, WINDOW)).run([spec])
    if wanted <= found:
        return ""  # a rule of the user's may be too slow for some other file here: the disks' own scan tells of that
    return reasons[0].rstrip(".") if reasons else "found %s" % (", ".join(sorted(found)) or "nothing")
