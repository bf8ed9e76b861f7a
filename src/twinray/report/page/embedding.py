"""One self-contained page of a map of features: pointing at a dot shows its image."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.about import DISCLAIMER
from twinray.records import FloatArray
from twinray.report.charts.embedding import group_colours
from twinray.report.tables import Table, as_html

THUMBNAIL = 56
_ACROSS = 40
_QUALITY = 70


@dataclass(frozen=True, eq=False)
class Dots:
    """What the page shows.

    Attributes:
        maps: name -> (n, 2).
        names: (n,) of the images.
        colourings: name -> (group of each dot, groups in order).
        thumbnails: (n, t, t) or (n, t, t, 3) uint8.
    """

    maps: Mapping[str, FloatArray]
    names: Sequence[str]
    colourings: Mapping[str, tuple[Sequence[str], Sequence[str]]]
    thumbnails: npt.NDArray[np.uint8]


def thumbnails(
    shown: Callable[[int], npt.NDArray[np.uint8]], rows: Sequence[int]
) -> npt.NDArray[np.uint8]:
    """(len(rows), t, t[, 3]) small copies of images; ``shown`` gives one by its row (``Pack.shown``)."""
    small = []
    for row in rows:
        image = Image.fromarray(shown(row))
        small.append(np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)))
    return np.stack(small)


def embedding_page(title: str, dots: Dots, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """HTML without a reference to anything outside it.

    Args:
        title: name of what was embedded.
        dots: images of the map.
        tables: figures, below the map.
        notes: sentences that a reader must know.
    """
    n = len(dots.names)
    data: dict[str, Any] = {
        "n": n,
        "side": THUMBNAIL,
        "across": _ACROSS,
        "names": list(dots.names),
        "maps": {name: _packed(points) for name, points in dots.maps.items()},
        "colourings": {
            name: {
                "groups": list(groups),
                "colours": group_colours(groups),
                "of": [list(groups).index(group) for group in of],
            }
            for name, (of, groups) in dots.colourings.items()
        },
    }
    # "<" in a name would end the script it stands in.
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    body = "".join(as_html(table) for table in tables)
    told = "".join(f"<li>{escape(note)}</li>" for note in notes)
    options = "".join(
        f'<option value="{escape(m, quote=True)}">{escape(m)}</option>' for m in dots.maps
    )
    colours = "".join(
        f'<option value="{escape(c, quote=True)}">{escape(c)}</option>' for c in dots.colourings
    )
    return (
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p class=\"disclaimer\">{escape(DISCLAIMER)}. The page holds small copies of "
        "the images: treat it as you treat them.</p></header><main>"
        f"<div class=\"controls\"><label>Map <select id=\"map\">{options}</select></label> "
        f"<label>Colour <select id=\"colour\">{colours}</select></label> "
        "<span id=\"hint\">Point at a dot or tap it, or press the arrow keys, to see its image.</span></div>"
        "<div class=\"stage\"><canvas id=\"dots\" tabindex=\"0\" role=\"img\" "
        f"aria-label=\"Map of {n} images\"></canvas><div id=\"card\" hidden><canvas id=\"thumb\" width=\"224\" "
        "height=\"224\"></canvas><p id=\"what\" aria-live=\"polite\"></p></div></div><ul id=\"legend\"></ul>"
        f"{body}<ul class=\"notes\">{told}</ul></main>"
        f"<img id=\"sprite\" alt=\"\" hidden src=\"data:image/jpeg;base64,{_sprite(dots.thumbnails)}\">"
        f"<script type=\"application/json\" id=\"data\">{text}</script><script>{_SCRIPT}</script></body></html>\n"
    )  # fmt: skip


def _packed(points: FloatArray) -> str:
    """(n, 2) in 0..1 as base64 of 16-bit numbers; both axes by one scale, since distances are what a map shows."""
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / max(float((high - low).max()), 1e-12)
    return base64.b64encode(np.round(scaled * 65535).astype("<u2").tobytes()).decode("ascii")


def _sprite(small: npt.NDArray[np.uint8]) -> str:
    """All thumbnails on one JPEG, row by row."""
    n, side = len(small), small.shape[1]
    down = max(1, -(-n // _ACROSS))
    shape = (down * side, _ACROSS * side, *small.shape[3:])
    sheet = np.zeros(shape, dtype=np.uint8)
    for i, image in enumerate(small):
        y, x = i // _ACROSS * side, i % _ACROSS * side
        sheet[y : y + side, x : x + side] = image
    out = io.BytesIO()
    Image.fromarray(sheet).save(out, "jpeg", quality=_QUALITY)
    return base64.b64encode(out.getvalue()).decode("ascii")


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--muted:#566170;--grid:#d9dee4;--ground:#fff;--card:#f6f8fa}
@media (prefers-color-scheme:dark){:root{--ink:#e9edf2;--muted:#a9b4c0;--grid:#343d49;--ground:#0f141a;--card:#19212b}}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
header,main{max-width:1080px;margin:0 auto;padding:12px 20px}h1{font-size:1.35rem;margin:.4em 0 0}
.disclaimer,.notes,#hint,.note{color:var(--muted);font-size:.9em}.controls{display:flex;gap:16px;flex-wrap:wrap;align-items:center}
select{font:inherit;color:inherit;background:var(--card);border:1px solid var(--grid);border-radius:4px;padding:2px 6px}
.stage{position:relative;margin:10px 0}#dots{width:100%;height:min(620px,max(60vw,320px));display:block;border:1px solid var(--grid);border-radius:6px}
#card{position:absolute;pointer-events:none;background:var(--card);border:1px solid var(--grid);border-radius:6px;padding:8px;width:224px}
#card p{margin:6px 0 0;font-size:.85em;overflow-wrap:anywhere;white-space:pre-line}#thumb{display:block;image-rendering:auto}
#legend{list-style:none;display:flex;flex-wrap:wrap;gap:4px 16px;padding:0}#legend i{display:inline-block;width:11px;height:11px;border-radius:50%;margin-right:6px}
.table{overflow-x:auto}table{border-collapse:collapse;margin:18px 0 4px}caption{text-align:left;font-weight:600;padding:4px 0}
caption{max-width:calc(100vw - 40px)}
th,td{padding:4px 12px 4px 0;text-align:right;border-bottom:1px solid var(--grid)}th:first-child{text-align:left}td{white-space:nowrap}
@media (max-width:600px){th,td{padding:4px 7px 4px 0;font-size:.82em}#card{width:140px}#thumb{width:124px;height:124px}}
@media (prefers-color-scheme:dark){#dots,#legend i{filter:brightness(1.55)}}
@media print{.controls,#card{display:none}.table{overflow:visible}}
"""

_SCRIPT = r"""
"use strict";
(function(){
const data=JSON.parse(document.getElementById("data").textContent),n=data.n,maps={};
for(const[k,v]of Object.entries(data.maps)){const b=Uint8Array.from(atob(v),c=>c.charCodeAt(0));maps[k]=new Uint16Array(b.buffer)}
const canvas=document.getElementById("dots"),card=document.getElementById("card"),what=document.getElementById("what"),
thumb=document.getElementById("thumb"),sprite=document.getElementById("sprite"),pickMap=document.getElementById("map"),
pickColour=document.getElementById("colour"),legend=document.getElementById("legend"),ctx=canvas.getContext("2d");
let xy=new Float32Array(2*n),shown=-1;
const order=[...Array(n).keys()];let s=1;
for(let i=n-1;i>0;i--){s=(s*1103515245+12345)%2147483648;const j=s%(i+1);[order[i],order[j]]=[order[j],order[i]]}
function draw(){
 const r=window.devicePixelRatio||1,w=canvas.clientWidth,h=canvas.clientHeight;canvas.width=w*r;canvas.height=h*r;
 ctx.setTransform(r,0,0,r,0,0);ctx.clearRect(0,0,w,h);
 const p=maps[pickMap.value],c=data.colourings[pickColour.value],pad=14,size=n>2000?2.2:n>500||w<500?3.2:4.5;
 let wide=1,tall=1;for(let i=0;i<n;i++){wide=Math.max(wide,p[2*i]);tall=Math.max(tall,p[2*i+1])}
 const k=Math.min((w-2*pad)/wide,(h-2*pad)/tall),left=(w-k*wide)/2,foot=(h+k*tall)/2;
 for(let i=0;i<n;i++){xy[2*i]=left+k*p[2*i];xy[2*i+1]=foot-k*p[2*i+1]}
 ctx.globalAlpha=.8;
 for(const i of order){ctx.fillStyle=c?c.colours[c.of[i]]:"#0067a5";ctx.beginPath();ctx.arc(xy[2*i],xy[2*i+1],size,0,7);ctx.fill()}
 ctx.globalAlpha=1;
 if(shown>=0){ctx.strokeStyle=getComputedStyle(document.body).color;ctx.lineWidth=2;ctx.beginPath();ctx.arc(xy[2*shown],xy[2*shown+1],size+4,0,7);ctx.stroke()}
}
function names(){
 legend.textContent="";const c=data.colourings[pickColour.value];if(!c)return;
 c.groups.forEach((g,k)=>{const li=document.createElement("li"),dot=document.createElement("i");dot.style.background=c.colours[k];
 li.append(dot,g+" ("+c.of.filter(v=>v===k).length+")");legend.append(li)})
}
function show(i){
 shown=i;if(i<0){card.hidden=true;draw();return}
 const t=thumb.getContext("2d"),d=data.side;t.drawImage(sprite,i%data.across*d,Math.floor(i/data.across)*d,d,d,0,0,224,224);
 what.textContent=[data.names[i],...Object.entries(data.colourings).map(([k,c])=>k+": "+c.groups[c.of[i]])].join("\n");
 card.hidden=false;const w=canvas.clientWidth,h=canvas.clientHeight;
 card.style.left=Math.max(0,Math.min(xy[2*i]+16,w-card.offsetWidth-2))+"px";card.style.top=Math.max(0,Math.min(xy[2*i+1]-40,h-card.offsetHeight))+"px";draw()
}
function point(e){
 const b=canvas.getBoundingClientRect(),x=e.clientX-b.left,y=e.clientY-b.top;let best=-1,near=196;
 for(let i=0;i<n;i++){const dx=xy[2*i]-x,dy=xy[2*i+1]-y,q=dx*dx+dy*dy;if(q<near){near=q;best=i}}
 if(best!==shown)show(best)}
canvas.addEventListener("pointermove",point);canvas.addEventListener("pointerdown",point);
canvas.addEventListener("pointerleave",e=>{if(e.pointerType!=="touch")show(-1)});
canvas.addEventListener("keydown",e=>{
 const step={ArrowRight:[1,0],ArrowLeft:[-1,0],ArrowUp:[0,-1],ArrowDown:[0,1]}[e.key];
 if(e.key==="Escape"){show(-1);return}if(!step)return;e.preventDefault();
 if(shown<0){show(0);return}
 let best=-1,near=Infinity;
 for(let i=0;i<n;i++){const dx=xy[2*i]-xy[2*shown],dy=xy[2*i+1]-xy[2*shown+1],along=dx*step[0]+dy*step[1],off=Math.abs(dx*step[1])+Math.abs(dy*step[0]);
 if(along>0.5&&along+3*off<near){near=along+3*off;best=i}}
 if(best>=0)show(best)});
pickMap.addEventListener("change",()=>show(-1));pickColour.addEventListener("change",()=>{names();draw()});
window.addEventListener("resize",()=>shown<0?draw():show(shown));names();draw();
})();
"""
