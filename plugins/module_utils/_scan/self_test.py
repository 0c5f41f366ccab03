# Copyright: vmward contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before a scan is believed, every engine finds planted samples: in every file system that has a proof of its own.

In ext on qcow2 on raw, as a whole and by differences; in FAT, XFS and NTFS on raw; and in archives.
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
from .inside import Archives
from .judge import Emit, Judge, Where
from .scanner import DiskSpec, Scanner

_INSIDE = {"a.tar!/gz!/", "a.tar!/bz2!/", "a.tar!/xz!/", "a.tar!/zip!/sample"}
_WANTED = {"yara": {"/etc/replaced", "/d/new"}, "clamd": {"/etc/replaced"}}

# Made by tests/corpus/self_test.py
_BASE = (
    "c-rlp&1(}u7{;I3jin}OsY!_vv;^x%QcEZjL{w}nK|NS4T5AzSVm>@1X-"
    "Z9R9$E@sEGi=6$%_j90SYRGdMw3*B1k|K1P?_KLB(E_IJ28biVHm?bkn}?FASO4WHUR@zWeYp*&RRw96$iT1We+xcw`Z%B4Cz4xj9{QXMj@a)H"
    "h*#&up7i_H&gRLHX7vyUECY;#YhhfB8=2r#5Q1F+Ssh4UBwA>|9*vpSn5|3Kj1~j;P~xFBw;T3CNeQ*zS-"
    "U{b&%H>i1JEU{)K$^Ka+T4Cu1%m8H}00gr4ujL)NwyH0!H9c87~IBw<Yz4)#F+cHsNNP$)r0}SaHXoJcOr5y+@j7nY8!eKM7Yll<I<}Vj^rSsz"
    ">Ni%<%({(LXNU(>l6+A2f;WXfbNPiOYLN~7WY9Cn8O&?&0;A06W`@p-GTZ-6ZwtwoZ30eFs0c9U}_-"
    "C#go7o4*)4>vu_kjTW0C~2u1mt~S8~XrxcCZBGeIUp_K%Op^fV>ZMvk#Dm{~KZ-"
    "=wTlq&u*50ybna!2gtLBB_Qtud)WubvyUYp?*j+e2gq}fB_QtuQT74y^sxlweIRB&J7o2oQHxP`h+MvqY?bv_db1cyjb`JCRFV~3LmXxaDEmNL"
    "(}h_a1<s_hiF_^<cCsuqIR=z^`PpOA&mAA<^G`ko27ob!G&spIKt2WrIR?nbz!1j(`4|}H7$6@5XE_E|?YXNL(^b`?J5wnuH9g@UvVV%?>meBH"
    "wf;YThcR~!wTPp{`9qXfZZr|*ZZ#46uGTV*JX&%}R#1O~>-OqD`GocqU8WJ%1iNW(_uGTCV_-4e00(i)-"
    "tM2Bqa6dCp$0gJ+xB*!^U{ui+4Bu>5O;tVDkti(%89h{vSrpek-G0-U5(xMM^#Sr-"
    "fd@2RLKdiS&V<VoNz;peRn)p<G+8&)|~Jz@L&>H4=WACvKrKy(!7o-4F)dSseu~*Q<v2>Aj(VoTaRDee%D@O-_AE`{Ga#RIsU&Pa^Ix"
)
_TOP = (
    "c-mt)zyJn;Zl1q^6f=a!&;i7fK+FT?F)_dZBZM-5as`mY2m%%$E`V_!Rcf6A*;kZUj-p7vB)0&BEz5ID3JlCr^^+2dQ}r@)(-"
    "}qqO@RQ6p)eX2BNZrsb2D~03PuJ17VQmShQnxBj8xzNO9KH=IsrooM7#h>H$dqLXz~l7^oG$e9cmy1QXMovx$)2@0wa2Tp@3*H^xWXdW?=aLKl"
    "nYQ!hrBm8jcLyP>u$Wassw1vw^L`#2T@O-^Bd$o5h(J`b+n44}^E~UMH)6f8pEQwntO*#yk^uMtI{F)gRQWY89|nsw_Z3`N5I~!l-"
    "8y?`V!1a^TOqKk5t-kWQg65G#Yr0Rdn~js+}lC9z?V0E5T3(U2PEAO=*b|7ZBajHurKkAe{e7~;TbU=)nxG>`xp3gls6WYS}Rv6-"
    "0k^dRjz5e6=%oc!Vv?X>*Tyc9_LiHCuiDYYb-fgi};!_3H(GFqArZICn?1S1sy^YgtE-|kOjNP*;c<Z|EzGo&0C1tSEcjRwI;E(dO(k-"
    "fo?0pWjP9u1Qb3$jLoU?i6VOaGqGVaORR2Sz-"
    "|8x4XHUk((EmIEUm6paSKh%X09U}Jxn<Al6mHVb2Jen|=+kbQxfgRv;JASW?7b#!QOIDxX!AQ;KzfB;+keufGLhVay!<ow)JJ+9GU8JVC4G;cU"
    "McQ~Tw4eLhZf5fMO1_p)*Q-8$(RR_m_Xp@+Ls0dRNjes~!b7yBw^I8>GPiMy<-QW;MKNrU!7hOlc5YI5rpwM955ZB-kT{ll3S49;MZ4a%{0(A("
    "376$M-0BrpN(Av^F%*>2=spX^LG@L=(Xb_C#e!-`e89AWcg?gi4L<5Gd(KImP(?HK?8W{0upl>t{jQBJ#fxI*j<{J*`D|-"
    "6528HMbJNgFrxQ;fmhALQtV1oAB!7#n7mkJyBAb9J@06rxH)Bmi{BRDv~B-dv~=ngChV1#I+2uR0(_9RN&Ko+BC_=CZ^feru0ts^@NW(y4hM-"
    "1>*aaE0xod&)ShIQSW2G;tWF(W$-C~FP^M{F5b>vM%ib{g0pI|v-"
    "Hje+3+s7+*mtxd$lAc3b%!~<?MQ3iY+Ky9MCJOkM#g0%^|vG|`*n^2HKyXAI){J%JTK-"
    "+{n7#Nl`GB9v5U<(6Af?+^uljfoeC=3FU1~Lpl{&&IJFCy%J5en@-"
    "><jY0)yx4+1H16`jR@xhQ3|auQ30RVGJBxYfIA2FG{A<(|DdJVViel_LK)=$rOpHCe*j|IRe%"
)
_FAT = (
    "c-mvQ#4rkm1z-"
    "eX4j@h>LvQFR1_1_!*ESQ9Dityk^HLNTm>3lp7#)C8KN#Vv5=R4h7z1D$2mnU+|Njgh{sRFP6%CBSK=Q+X$pXgF;2N$Vh=IW|m7#<o8OZ+spP!"
    "-ZKN0{5{r~S8;;aA#0?1kw8JNMeV+sRAAxOU?rhXR%1swWWM#FzFfEZvL7BQqU6foof3w?eDr(_@p7O4<2$Th&n(b*Lom8fyZ%HT2@f<qs~0n<"
    "PpFxtzZ<v=ZFKK64Bhi7EeG$6v@&M_K<LmnhBFhrR8D+Z`KI0i(U!~{e|n3`w=#A%v4J8PQPs<?VOI|k_nhdBDVI0m`sI{JlphIs~s2J42n28Z"
    "andHT32s(5I7XpIKs5C%0240@wrL<5Gp(KImP(?AP(X&}ru98@=W`nd*$=mtCb2Kcy+mZ?J(w2hVnBfcEy7)=8s9RL8{X8o`"
)
_XFS = (
    "c-"
    "rmU2~bpZ9KiAa?xI5Am3h8QQ9Kdx;LyBSmTQw^+eHphKmj#1BQizJ#Jn0cb<9c2Ovj_tnqq?SKvPo3Gmp^e)O3{0$#cq4ryA+K<?W)&x&uG^{S"
    "x?nXWsmG-_HJ-dGGW7yNioL2#t_Sim-"
    "$V(L|JI8!I{+I5y>1L(I8?Em!WI+i4o8?ygrpNFnN|S4Vj+WnSw%n(}?R<ibr_p%udY!FjzrJak?{v{vt`^N9ZHqpO7L+#T-"
    "AKTET)e6!{uZ=T8xOWQdu<iSmF&XZ3}l0Gt`;(Xc9ownlG+8(oxZsnWT3VB=R!pQ%ge`%v+KEYMU&1%5tU_iMhb?UzU%C%m`l{s1;F=Ou7%16_"
    "F&1h<jf%=Mph-g>Wb4d52t(9XSvq+V<G<i#xw^6L3cBEYP`p~}0Yq-|F&*AmfnT-tv9nQ!OGRy7jvTd&mTn((f)quf?fhMjD486V5n+?>GdI@2"
    "a5h$-;4hCAeGO%QE{)zI>1R?#^r{(d%tf9$gF~aE7KzmmP3QGoUVgt1#lMwf>7wxI|Jg5~8p9QU{HZ=Lgr%u)JBc`c*P1JDyX8XBz-zs1ElZNq"
    "SQTN^x28pD=IB!#@5WOiSV1#LSQeZ$=Q);(hgP~jSOrLP0L2vf6#Oq_j^yV-"
    ">eQdlj!Dt?4@rw_)#QQ}Uqr<&@qI{#e^MS0%?+JrMPp(cU`mljIZy<mT)OiCzY@p5?=m#^95R<69M>NKUo8$c~`WRDmIKQ{5spSO;W32wVPE+a"
    "MzwEU=o@E__iki16*s|`HZB!p_<78ItgLjnQE%Y|($2gl?RQ?`-czAv(#PRdE*1A_G(z7OK$hRefMr3CyH<%%;w-"
    "f_;LZ^NB_aKipP?&2QUCgR|@O&!<a?c&A=gh~W4cO+F^iS&d6KYL!t7~9)lx?hn0sA_Ty2w1gdIoIsOQCE4x%p0C3$%|maM(VowWx}L;^tFVt9"
    "Nx(GhmxvGB_I0SYHd=MS4zF_QX*cS()+<DU44gxVIGpvo}_K9k|-"
    "nHmVPYIXp+>%)o|%31!t=2W<08VXoGJi6J%U`#Mi*3#+*fluWy48`X!KR%IPHe`$MYwblXq{8G5{bwGYkI4NtYvIIo%S$w<}S92XG*`011)l(Q"
    "*m33fVtD@P}S_ka&OA#*DfplI69=j!qfyx)>f0<(7c>Rn>*t4Zbeou(pG8zM(-"
    "UUm62BO#ia?5E9?CZIGGthvM4IsCI#=!f7cYO^s@B$k^?mZd<rrvum0}Tvi1IVqSG2s8)hGswm(QE*@4`>WrZu&_8&_E0uK<+~t17B%A9SJlL%"
    "Lb79h{nL=Mqf+^8i->9$gQI>P~7jgBR~TtHh|oE8Ur4|mu>(JyvPQS+el-;+~wv1paC-"
    "*K<;B21FO4UT?aH^VFSo*rZG_3;4bj5*ra$ifZSFZ1Agv*<^T;0V*|*2Mq^+~t1<~_Ab|}a_c@J$y)FL+o;xX#4Ir0KV_;e@-"
    "`hX~No)YQFKG<q5Ai<@G?2^&kSnAyaMizK5zxSJHh|nV8Ur2LcUc28kirI#+d*SsWa9zjfCfge0pyBk46G1C;(!K5vH|3F(-"
    "=6}q;F@SfmAkt+#VVO_1gsl{}x0_V*|()(-"
    "=tbj067f08%;|KyDw6fwgW!M*|IvVgtw>pfPaZnMhBdfzfOLxq~zY8cK#9Km!?U0J+07266(@egqoGWCO?@r7^H;K+1iffh;zF+&44^F8C&{1R"
    "5B_29P^JW1yRlB_C*DEE_=X6pewKx;eQ(1LN2LawRkdI(sch0~&aV4Ip=h#=y*H7X<+gjAsMLeMe)Uu-Ve4Km!xl0CGRj7&tcY-BO@|iEIG5pJ"
    ")td`>xy%H1IMTK<+G!f#i;>w*n1JVgtziLStZAkG1ar4ZOkzkh?%*z^BdkgMkLJ*#L4EX$)L%e!4Z#z^iNkxl$Sf+v=Uq1{%m=1IS&bF)-"
    "_?pA&%wUSk8uU7;}`IvrXMG%%SBAon|sfg|1b&jT8Goedy&jmE(8=TBY(8koWckh?)+ASLkFF`$8|Yyi1iGzQi@EdhUol*<N?`-"
    "8?neA{+DKm*g*0CKl!3^Z=oECy&`IvYUl4vm3>+Lq&i24=7U<nGZJ*y-oF7HHrNHh|n;GzPLeG~NL;Fp~`+_YaK$-"
    "#)r;fd<}W1IXQ{F>rBEgF8S2v)BM`{{lDg(7*"
)
_NTFS = (
    "c-rmV4{TI*f(P*5doyi^0%fQ@uCg4w_PShUq1Qu1j^nWZw<V>F?a=EYi!HX;Vr{!^ae+myA+BMKF^zEvA;u-"
    "f7>*D_Tw;i8xW*Vmj1Xds=Mpr;5JSWmVvHe%(EGi=eecao+Xrot`F?+8cyHcJ-=E+6{J!&hznK9cG@+Mkjl&J`nkG#ap(?^GH-"
    "vaZM1@_3<j?3lb6&HSjb@osRo)`<_Us>bJyw0>@!#spa+aL=-M$lrBZIS>Pv!hAOPq^tyLNr$m2(Tu-GA*?yt8XSlYe@82emeBdvEVx+xG4bt-"
    "WjDsS+*L-O)DCp>_2Pbo6^3-qGFL*SAM&>uH~x-"
    "PhkSFd%35Xis(Q(FS|9!G8J3lWko+T1iQXHaA<aOtNe~uAk7+QDL0Td8`o3QYJ)AU43<_2sw)s`Ljme4(pi^9($@in`uq;lxQ{P@{PZ1ow@N#<"
    "|KEmRNgwB^{ZloF{g+OW10N>{E1yXLtiK<r`^_yy1m;Chl<2TQ6u6`#+m!B=#?Q9XZwF1t0J>3w;qdnr@4pBXgujzPbgVcj|Hbyf9~mg#he?JW"
    "#$0LTB%?&z%J52Rq7mQ@#R3sY9;DKIWR%{Oqv5q@*L=M<v?T59Pl+Xd%F=Q2R4c>(Jz0-"
    "&x0&~JB}uw7DUV*(#*EwJ1z2T*03dD7uA68&jEFu98mA29B_6%oR9<cqE|dA8$g%rEObne1EY#B2Yl<br-eezirkAiuz@WBJ_qU(b0B2pz*%1o"
    "WV*7z&VgE24wT+z4tV?jiiibn@5!$_vSfR2mhHV;>=IAQ)*iFkx}7WS&KAQ%`f=FT33<k&tE}V96Ms>1g<@_cBiH(UW10Dc4E>@&lk@K9_#YEi"
    "X68HF4?A;u))hPVGQ=F;^;Jk2%c-"
    "&74>@ypmOFCi8rTxxb0C(O17Rx%Mv{yVgr_M7?&x*j9u>?^?EjaGLHW}!FMm434r{qL4?>g9gFlJHJTR68%!5?@j<EmwBRl!DAfr^By6X?Qsz$"
    "a1_#B8Q=0Jv#10l1)`}zYJu0<2&z#oqP-7~e9FHMpIt*-t+)t&bTj4O5}RN}Pzv393A&x`omU9L4881+sIW-"
    "T#(X;|J`j0S7w#~NY2cTyzk#DnrEO6^u1HP;=rUgwK_mp%EuQN*LxJ}TidtA@Sf615YIOW4~lh!m^#cxAD(pJ8KP-"
    "1}+oi<u+xY&NqcV3)7~+n)oOR(~LtWPBiVhQ|lo?-vBVUQoy4&VRj7A-"
    "ZHg;c3w(dm^b`pM^gs)a26w<)JBjeZC8?1zXq>;QIqx6LTQT%7N2Kt_!lJeSARGhb)4%cg<Rn=56m8Mtkp-KZ8H(>w$UxywQ?R=SSVI<5Os08("
    "RW=4zwobK*Y*{-AQsFBJS4v1)<w`zaaVeVZ_LXHkkvJ#u(y&Fx!=P98PuShCKcDvDMz1=j*rMTH>7wyWehZO|?FV_4DdC$m873mH?jv?TI-"
    "s%gBLQ;+SuIAj5cUN^(F;h=B>O3#R0K1kJuKXc8Ub37G-"
    "?a_Vj8s;7E9?OZi0<EHRV^|e*WTcM(^R;_V_ldf@uVdwf>e_rj_P=sq7VaVyL=*O669ltq(@o3Rsjry^t_Vf11Tb=yzKmU4e=!PCw_Eh+u?;dV"
    "Y^@H4D?(<RCn8J{2pY7j?`u4fc$!WdUWbQ+;4JO6*{m)BvT;6@WSFgG5p&aN;%z^B2K2Ml^*Tx4zw~+(h3wihWz-"
    "B49Qoc$LSUHgNa|8bVdWr#pLZLhycJ=#3hS{IctnoU1e6B|}wq9R%e@@pgp8Ea%OBemeJ+tQJG3;bZfX{*M#2lDyy<ae-CXN%%o~9g_q5eSB&V"
    "g#NTMWt!=#d>F{k71%1~S{P{`o0QjQ>7BtzzEva=#U1t=1dyv+chF?%z@?A~NOvZIYe!opSr_PVG+Z`X7~jA${DWO+TAGLM*hl(P_Pjc&FRYue"
    "};&{r1T%^c!jGEqtB-ndLxVVh-q^W6}EqT9Wq*=1jvl;obgxk9S-^apo|L%1Y>GOMuUT!NeSxJ5CPFWe%jDfoIqf;B#PiVh-etlLI--f%G%5mn"
    "{K42lgfAz`SvCU><WI{S549OMuUTp~M`B8aW`uLE+5-"
    "W$d@6GzU0Vbe9brU@gEKcrGyq<}(Md3_Q<TfH!b3F$Z#)16T%LU@gEKcrh^t?qd#M8F-1c0B>M8F$eOP16T%LW-"
    "Y)QcqK6h{((7wW#ABN0p7sj#2i?_9KbSggtY)~;MK$&_($ddmVwt;3-"
    "AVxruuiw=ZZex_l&~A{muN_|DMs(+x*^fgD}5mG_~KeF~4)W+o%rndyV?PJ*GcV|F(}^=356Gapj-"
    "=ePqq5q+;tI3QPE`lHxsJ`#U!JcCS0zRmBBoyN`OF>)!5&bu-6tO09YiJ2|Zi-"
    "&Z%Sx)}8pkAc_qb(I<ST3p{74!W*npV9IkGc*5Zngeg7&VgkAZu$Lbk^}DV^Xcs|=4y|nNpj#mUwhO<;z8V-"
    "*5w|*$(8`01IJS5Kx>j5SUAHu(C5m5#wp5yRNskBod=C+oCk7GkFzDf=fH_%Ibe<tl=;R7^zsW=4zQ1xCI;SOEx;Q%87v1DF$dDmz}u_^cmt<`"
    "<-"
    "k8N2hz{LJFEqG1E+)Kz+&b=`WbkawE%D6y<j=8ggKCY2F|b+;0=rf%K?o!kbVZ<XDz@R_#jvg6fg(U&%lSQ1$YBzgXKUWb0GZ;e8gISH}G+=9Q"
    "bGEK>8Ut&su;ta3NR@6fp<V&%h_F1$YCW2Frn8G6&Mnz-"
    "O!lcmtmY%YmiLf%G$Qk+lGC;8L(0_!s6t`Wg6=wE%D6a<CjIW)7sEfv;E#@CL2~%Yg@&1L<erYt{n1fvdrCU>S2D{S17=T7Wn3ZLl2p6>}i{41"
    "C90fH!bGSPm>_4y2!f?^z4*27U;Z11p#V>1W_a)&jhN8^Lm*ggKCY27Y2Kz#F(3EC>FTIgow^Zm|~N4aim>BnL{F1L<c#Ragz^2ExH|;NO@7>1"
    "QC5IRI}U5-bN+G6&MnKsIv#-oTt-Iq)EJApH#FFbCibM1$qPD&|1?8OUW0z#GU5mIDtl2hz{L0_Fg`f&5@Ou$noLeg+mY2jC4X3YG&8GY8Voz+"
    "&bAya6p(4y<7gq@RI8<^a5bqF_1j@63VpGq9970B@i;SPraZ4y2!fWy}G11IvTuz<)3Y($7E%a{%5zX|Nnv#~esM11p&W@CH@|%Ypx74y2!f)y"
    "x5S18aiiz<TCD`WaZu9Dp~lE?5pc!W>9H1M8Us@CM3~<$xk{AS5EHHwVI2He^`$qw-ekTATiF6XeTV({KL1t7qs7rF^e<YA@G(d!hect8*`8tT"
    "SKkgSnjyXML%r{-e^&U6X6-5QE|g5tH+suA_@t`>BZVP@XXV&qlrI-<?p*kjv2bQBxD|t74InlOmKSMwKN(QJm-"
    "$!}508sHl9SZV#LLBG+Fh9+XE}YClo#UBs%tgVs$i<<_b?MWZoSX59~2^;h()cWN)U&q3AL@f#%~`ehCDiEhy*YoSB5`|2rb?4_*b3Wb>tU8I4"
    "kR5_rC5hXDP$|sQn6S+;61AVR>XtZ*`-"
    "wskuYZG%IWjoOKZ>Dl#$dhlX(N6X4v^=z_Aok0$^4Mdmw#K%!JhZAfw(Wt3D=Qy(_}QZBy2|p#6;1K-"
    "hN|+$sukr8@w(=^#?4JD;?+&@75bSfD60Kc?Xs!skIA!H!~Ot#4%DXZ58OzS0~M3Vf%4;K`^@jT=$YEfC+ZJW`T7I)@1>fi>JKQg<?HQoCi?@&"
    "T>XKAljslZwr+Z<v{uz()oO)x|Novg>u*cHcWN&e+2-&6I^xa2km!-"
    "=_j}*#zdt`@EpK2Bz~?}H>i)ptBsowyi5!^7?PRYD{Ouss)NTj<{(#*MX7csF*0@vV8buka!ZLe-"
    "uie_yf{d(e_v`%3^ws6rY+w$+=fL`~*&bx0)}rRpJX3Mh<e6`J_q7KxJKu<cgyq81J~DFkzh~!}&vh@8&--8HKIeI}o#!c+J<H_w|3~C{wqG!|"
    "{i6xXS%Q~_aMH!@^W{BvENNF_VNusm)lw{GB|N16pQb}HDz45m@6QrnBz@rsTYuZ*TXuh5oIhc{UZ<L7dtV<j?d$qbkti2~@~2;3BXo!z)=O^0"
    "y6O+S9ba*8r$V&JtA|R_Ep~|kV`-N4c&6;5#DZ-"
    "{9UFdiZzs#xPM18Mr{&iA<QB~Bw2Jy*>({&;9((;6#`=5Z&!F5&w=nZ__9XXTp7+ME7^kkH_Ayk;E0{rfK6+%0sn&r8KNn$-"
    "8uz)Vmq+lVs4<SAW2~EHOk2f<VB6`oezn_MS7EuGjdB}tXU*QR*-5WI>gp8xj>BC4MtL0l^2g*b%W6S^O(mWW%|0JZvX-"
    "8ZZuL>HY^xy!U%$0?@vsBe?RK;DS}D~I$ZdqIUiK6mgR}l-dCv8=_q1HUy}lM}#M{6AKUm`c_B7S{m)he3p%TyawST=6jbDs6-"
    "ryd`x3A;<?`x!bpJbx<HT>7{GgG92<}hCmp^G%oLIdyyw$K2)fvq$EZ(th@z#C`{3;jwXF0aTNWdFHbUME$F$3>mIS0gsbdmH7lxV*nfE}5PZb"
    "<OL2?ow;selMcP*n_y-mpa+k-z?{<<sR0{dri)D-gFktH9zE<AGJ!6tf@M=Kl)xZ$bH=?=Vr2$y5{w3A^Y=06{=l-"
    "o8<Bha<3|7ed*`6%DaN?)1L!nDdz1V0NtRzf18c792dWl`&lKIG|6T9l9*h!$-"
    "0K0mSM69&vCQde!bkkjd$fdxBBW&O{hQb{snHo?RRdV&$o|rtob=kJFYVJrTi|X-B60<W9PWe$iQlO#s9dhxlQsXK7;!=oT7~+-"
    "@kHsw(I2{R!&_$@0i%Y(Fxm0h0%U>b+Nl}j!#awe~q&KV#e!SlhIOQvgY)9otZN|lFDP5-"
    "A1bAzRm3Gucvf|#RcDPS#M`MQ*$5hUb&p|5yjd+y<PlT{!|-%naxK1)jO{%O-5g$+DPzeDN3r$xkuiY-x-"
    "$eMRD59Sa~E++>TCr`R{3askq}^n|DuN7z~N-u(+NZy5T0fPne&v(fj2s)-v-m1*@$7NS^qU{+_<)J>`6J*#w`%N&LKl5RVr9)mYb1fbIW9N!-"
    "4%>^8O!U%DeSfL?CR3-"
    "ozHy=1zs>szh*x3A~(C$Y)Q0N1^p&iYm39c1_Cji>58<RRhy9N<`E__M#SzTA2&>Ye5uGKUaOde#$4eT}So$3^Vvd?o7iWoHgRrf-CX1+Pd0YB"
    "XgIwD@u$WVI4?q8yl@eP&M3w|3`1pDPC%gXTbh&w7lP2U-"
    "4h98Eqgh>T{<d^^6=qW@pF%mM78|6jL>IiQY{1M0n$1A#ufmO2MU75^AsIO()ds9BMFF$W^d0r(uqPRxOjl>=veIgshf0y_t4T{%#Cn>pa^|J&"
    "aKQl|WKi!o;$&&-u}G4_2U{W#)xdL8QiJbsdE&{n6W@|}v!x3aF-xtC$Q&*Hwm3MpebHTL@<XYS5&NB_TWnFH`SkP{W7EYL+nX#n0pE)BpN$fE"
    "&x0}E&X-atMLz#CXd1MmhG(Ez-G#WVnKK%)V81BEmIZ=i?<;0-LL0eAz&Gyrd484bW2SWW}*21;lE-asi0z#CXe1Mmh`(Ez-"
    "G)ieNaU=0nx8(2#N@CMe=0K9?qGyrd)j0WHhRL}stfhrn+H&8<Z@CIsW0N%g`8h|%YPXq7<8fXCCK#T_94K&gKyn#3kz#C|$0eAx~Gyrd43k|>"
    "<*h&NN2DZ@vyn$94fH$z62H*{}(*V4I9W(%MppypR4eX==cmv%u0B@j&2H*|!(Ez-Gej0!`Fh~RN2A-h-cmum>0N%h}8h|&jj|Sik?56>E14A?"
    "bZ{Pq8z#Dju2H*`mPXq7<4$=U;ffr~1-oT4A0B_(W8h|%2Oat%+UZw$f1Fz5kyn#bB0B_(h4Zs^XLIdyyUZnwe1Fz8lyn&-"
    "M0B_)R8h|(O1`WU)c#{U;4IHBZcmv020N%g}8h|(O77f4~I7tKW2HvItcmt<s0N%hmGyrelG!4KTc$Ws?4ZKGK@CMG%0K9<_8h|(OJ`KPd_<#o"
    "B4SYxg@CMG(0K9>ZXaL^8$20(M;5-"
    "e$8@NCN@CH7i0eAzS(g3`H&u9SNz~?joZ{Q*gz#F(k1MmjEqycyXmuUdrz*jT?Z{P|Iz#I6Q2H*``r2%*Y-_QWOfp2L5-"
    "oSS>0B_(r4Zs`to(A9z{6GWn27aUgcmp?R0N%h)GyrelCJn$FxJ3i-"
    "2E=?CKsTV$0K9=P4Zs`7qycyX5gLFukWB;d2IkNJyn!4VfHx4O0eAzsGyrcPj|SikET92+1Nk%nZ(tz}z#CXZ1MmhG(*V2yjRxQi6w&~^fg&1!"
    "H?Wij;0+Yh0K9=^Gyrd4ISs%YD4_v(1En+oZ(t=2z#CXa1Mmh`(*V4IH8cQkU@Z;68(2pJ@CMe?0K9=R8h|%YK?Cpxs%QY-"
    "Kn)GR8>poLcmo?~0Ny}74Zs^{paFOTF&cn3&`1OD2I4dTZ=jh5;0?6U0K9=MGyrd4D-FOK*hT~J23lzV-oSPmfH%-"
    "i1MmiR&;Y!FP8xtWu#*Ph4Rq50yn!AXfH%-"
    "b1Mmj=X#n29APvA9c!mbx4eX`?cmsQB0N%hp8h|&jp9bI!4AB6*fde!EZ{Rr^fH&|w4Zs^XNCWT&UZ4SZ12575yn&Z!0N%hb4Zs_CnFinuyg~!"
    ";1`g2xyn(|s0B_(34Zs_Cl?LDqyha1?29DAIyn)wg0N%hGGyrelO&WkVaEu1v4IHNdcmpSB0N%h`GyrelBn`kDc$)^`4V<C@cmway0K9?IGyre"
    "lT^fKl@E#4o8#qG)@CHU`0N%j+Gyrel0~&xg@F5Mr8#qe?@CH7j0eAx+(*V4I^E3c&-"
    "~tW68~B6<;0=6A1MmhuqXBpWpVI)mfr~T%Z{QLQz#I6I2H*``rU7^ZU(o=(fh#lsZ{TYhfH!cJ2H*{RLj&*zzNG<p1K-"
    "gAyn*X90B_)X8h|(O0}a3%_>l(S4cwpscmqGt0K9>lGyrel77f4~5V<sfZa}30cmrV?fH#my1MmhSGyrcPn+D(w%%K5z135GRZy-to@CI^e0Ny"
    "|z4Zs^%Km+gw@@W9xz(N{;H?W8X;0-"
    "LM0eAx%4Zs^HqycyXMKl0!U?~m28z`m$cmvC50N%iI8h|%YLIdyyN@)Pzz)Bi`H?WEZ;0>&%0eAyzXaL^8S{i^iu#N`c4XmdDcmriL0B@jz2H*"
    "`;(Ez-G8XAB%P)h^w1~$+Dyn%WefH%-"
    "U1Mmi7Gyrd)kp|!m#AyKDKr;=%8)%^ccmrE#0N%h>8h|&jjRxQiw9){)f$cN^Z=jt9;0^4c0eAzQGyrd4Ck?<G=%xX913feVZ=jC`;0^TC0K9="
    "g8h|(O3=O~=*i8fQ2KLebyn%f*0B>MF4Zs^1q5*gV2WSA^z;iSJZ{T?vfH!cE2H*|6Km+gwUZeqd12544yn$gFfH&|m4Zs_Cg$Cda9HIeu1BYn"
    "<-"
    "oOzWfH&|e4Zs_CjRxQi9Hjwx1FzEnyn#1p0N%ixGyrel7!AN1I8Fob22Ribyn(l90N%h!8h|(OHVwcVI7I{S2Hv3ocmt<t0N%j6GyrelJsN;Fa"
    "E1op4UEtLyn**=0N%g{GyrelLmGfLaFzz(4SYlc@CH7n0eA!FX#n291sZ@i@CgmT8~Bt4;0=661MmhurvZ2a7ij?Az$F@hH}EA5z#F(s1MmjEq"
    "5*gVS7-p<z}GYYZ{R8oz#I662H*{RO9Su*zM}zn1J`K)-oW=X0B_(28h|(OBMrbCxIqK(27aOecmp?S0N%hY8h|$-"
    "?xO*811b%`8wk??yn##_fHx4K0eA!1Gyrd44h_H?$e{sv15p})H;_vM@CNc|0N%g?8h|&DPXq7<7SaH`fkiX`Z(uPEz#GtL0Ny|$4Zs^Hq5*gV"
    "OKAY!Krs!#8(2mI@CKIC0K9<`8h|%YN(1l)R?+~xfmJjBZ(ubIz#CXY1Mmjc(g3`Hbu<8PU_A}M8z`dzcmowQ0B@j*2H*|U&;Y!FS{i^iuz?2P"
    "4b;;BynzN9fHx4M0eAzAGyrcPP6O};nrQ&uKno4P8`wev@CLTh0K9>1Gyrd)l?LDqY^MQu1MM^bZ(s)vz#HhK0eAyDX#n0pHx0lW=%E341AR0A"
    "Z=jzB;0+AY0K9=`XaL^8ZW@3$u$Knl4eX-<cmw-"
    "s0N%h54Zs^XKm+gwo}&SH1JBa{yn%x>0B_(08h|(OA`QSBc!>t!4Ghx&yn&Z#0N%hWGyrel5DmZ^I7|cZ29D4Gyn$C~0N%iBGyrelC=I|Hc%25"
    "|4ZJ}E@CM$b0eAz)XaL^8aT<U(aDoQl4ZKAI@CHuO0K9>>X#n29DH?z`@D2^Y8#qk^@CM$c0eA!N(Ez-"
    "GGc*8iV1x$X4ZKeS@CH7h0eAx+(g3`Hvorv2;3FD<H}EkHz#BME1Mmhe&;Y!FPiO$%z^60-Z{RZ;fH&|t4Zs_?NCWT&F3|wIfiGzQ-"
    "oRxVfH&|J4Zs_?LIdyyzNP_q16OGP-"
    "oQ6B0B_)18h|(O9Sy)6xK0D`2EL~OcmqGs0K9=8X#n294H|$q@DmNd8@NdW@CI(t0K5T_M+4{vR2qOc5T*fm1DP}cZy-"
    "Vg@CLGJ0N%hH8h|&DlP5}8po@so0K9=*8h|&DM+5K%7TlhJ=8gYV-dMGwuA#ayzM`poW30Yfu-"
    "v2N))H~8akwE~)1=8FRK;3;Lx@L2)Op&F{285R&TH1P(JXVS%3DO<p8eyl$EuG!{#$)n&XO~~+jpXHWN>!#shq!MiF46y*RHR;a&E!7`>)-"
    "KcXkbE@=s6ipw^~s@9iCI+uq%wwRa6XRieeZJK6?1w630kj(*R>JGy)O`u1pTJ?(R|`}#Wu2ITA>?WvAE+F-9X*e@S>vaPE}lR&k(**vk6Et`-"
    "3KPYOiFa"
)
_OTHERS = {"FAT": _FAT, "XFS": _XFS, "NTFS": _NTFS}


def open_images() -> tuple[Layer, ...]:
    """In memory: the overlay, its base, and the others in their order."""
    images = (("overlay", "qcow2", _TOP), ("base", "raw", _BASE), *((name, "raw", _OTHERS[name]) for name in _OTHERS))
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

        def take(kind: str, body: dict[str, Any], found: set[str] = found) -> None:
            if kind == "finding":
                found.add(body["path"])

        judge = Judge([engine], take, WINDOW, archives=Archives())
        content = Content(len(sample), lambda at, length: sample[at : at + length], WINDOW)
        with engine.testing():
            judge.file(Where("self-test", 0), content, lambda: "a.tar")
        if not getattr(engine, "unpacks", False) and not found >= _INSIDE:
            told = "The self-test failed: %s did not find the planted samples in an archive (found %s)."
            emit("reason", {"text": told % (engine.name, ", ".join(sorted(found)) or "nothing")})
            return False
    return True


def _archive() -> bytes:
    """A tar that holds one of each other format."""
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sample", eicar())
    packed = {"gz": gzip.compress(eicar(), 1), "bz2": bz2.compress(eicar(), 1), "xz": lzma.compress(eicar(), preset=0)}
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        for name, data in {**packed, "zip": zipped.getvalue()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return tarred.getvalue()


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
