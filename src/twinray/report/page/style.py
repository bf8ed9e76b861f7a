"""The report's style sheet: one column, light and dark, phone to paper."""

from __future__ import annotations

from twinray.report.palette import ARMS, FOR_DARK, GRID, INK, MUTED, PICTURE_GROUND

_LIGHT = f"--ground:#f5f6f8;--card:#fff;--ink:{INK};--muted:{MUTED};--line:{GRID};--accent:{ARMS[1]};--soft:#e8f1f8;"
_DARK = (
    f"--ground:#0f1319;--card:#171d26;--ink:{FOR_DARK[INK]};--muted:{FOR_DARK[MUTED]};--line:{FOR_DARK[GRID]};"
    f"--accent:{FOR_DARK[ARMS[1]]};--soft:#16283a;"
)
_ARMS_LIGHT = "".join(f"--arm{i}:{colour};" for i, colour in enumerate(ARMS))
_ARMS_DARK = "".join(f"--arm{i}:{FOR_DARK[colour]};" for i, colour in enumerate(ARMS))

STYLE = f"""
:root{{color-scheme:light dark;{_LIGHT}{_ARMS_LIGHT}}}
@media (prefers-color-scheme:dark){{:root{{{_DARK}{_ARMS_DARK}}}}}
@media print{{:root{{color-scheme:light;{_LIGHT}{_ARMS_LIGHT}--ground:#fff}}}}
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%;scroll-behavior:smooth}}
@media (prefers-reduced-motion:reduce){{html{{scroll-behavior:auto}}}}
body{{margin:0;background:var(--ground);color:var(--ink);font:17px/1.6 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,"Liberation Sans",sans-serif}}
main,header,footer{{max-width:60rem;margin:0 auto;padding:0 1.25rem}}
header{{padding-top:2.6rem}}
.over{{margin:0;color:var(--muted);font-size:.86rem;font-weight:600;letter-spacing:.06em;text-transform:uppercase}}
h1{{font-size:2.1rem;line-height:1.18;margin:.35rem 0 .7rem;letter-spacing:-.015em;text-wrap:balance}}
.lede{{font-size:1.14rem;margin:0 0 1.1rem;max-width:46rem}}
.notice{{display:inline-block;margin:0;padding:.2rem .8rem;border:1px solid var(--line);border-radius:99px;
background:var(--card);color:var(--muted);font-size:.88rem}}
nav{{margin:1.2rem 0 0;font-size:.94rem}}
nav ul{{display:flex;flex-wrap:wrap;gap:.25rem 1.3rem;list-style:none;margin:0;padding:0}}
a{{color:var(--accent);text-underline-offset:.18em}}
a:focus-visible,[tabindex]:focus-visible{{outline:3px solid var(--accent);outline-offset:3px;border-radius:4px}}
section{{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.5rem 1.7rem 1.6rem;margin:1.5rem 0}}
h2{{font-size:1.36rem;line-height:1.25;margin:0 0 .8rem;letter-spacing:-.01em}}
h3{{font-size:1.05rem;margin:1.7rem 0 .5rem}}
p{{margin:.6rem 0;max-width:46rem}}
.note,figcaption{{color:var(--muted);font-size:.93rem;line-height:1.5;max-width:46rem}}
ul.points{{margin:.6rem 0;padding-left:1.2rem;max-width:46rem}}
ul.points li{{margin:.45rem 0}}
ol.steps{{list-style:none;counter-reset:step;margin:.4rem 0 0;padding:0}}
ol.steps li{{counter-increment:step;position:relative;padding:0 0 1.05rem 2.9rem}}
ol.steps li::before{{content:counter(step);position:absolute;left:0;top:.05rem;width:1.8rem;height:1.8rem;border-radius:50%;
background:var(--soft);color:var(--accent);font-weight:700;font-size:.95rem;display:grid;place-items:center}}
ol.steps li:not(:last-child)::after{{content:"";position:absolute;left:.87rem;top:2.1rem;bottom:.1rem;width:2px;background:var(--line)}}
ol.steps b{{display:block}}
ol.steps .took{{float:right;color:var(--muted);font-variant-numeric:tabular-nums;font-size:.93rem;margin-left:1rem}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(13.5rem,1fr));gap:1rem;margin:.4rem 0 1.2rem}}
.card{{border:1px solid var(--line);border-top:5px solid var(--mark);border-radius:10px;padding:.85rem 1.1rem .9rem}}
.card .label{{font-weight:600}}
.card .big{{display:block;font-size:2.3rem;line-height:1.2;font-weight:700;letter-spacing:-.02em;font-variant-numeric:tabular-nums}}
.card .small{{color:var(--muted);font-size:.93rem}}
.verdict{{border-left:5px solid var(--accent);background:var(--soft);border-radius:0 10px 10px 0;padding:.9rem 1.2rem;margin:1rem 0}}
.verdict p{{margin:.25rem 0}}
.verdict .headline{{font-size:1.18rem;font-weight:700;line-height:1.35}}
.table{{overflow-x:auto;margin:1.1rem 0 .4rem}}
table{{border-collapse:collapse;min-width:60%;font-variant-numeric:tabular-nums;font-size:.97rem}}
caption{{text-align:left;font-weight:600;padding-bottom:.5rem}}
th,td{{padding:.5rem .95rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}}
th:first-child{{text-align:left;padding-left:.1rem;white-space:normal;min-width:7rem}}
thead th{{color:var(--muted);font-size:.87rem;font-weight:600;border-bottom:2px solid var(--line);vertical-align:bottom}}
tbody th{{font-weight:600}}
figure{{margin:1.2rem 0 1.7rem}}
figure:last-child{{margin-bottom:.3rem}}
figure img{{display:block;width:100%;height:auto}}
figure.photo img{{border-radius:10px;background:{PICTURE_GROUND}}}
figcaption{{margin-top:.55rem}}
.scroll{{overflow-x:auto}}
.scroll img{{min-width:36rem}}
pre{{background:var(--ground);border:1px solid var(--line);border-radius:10px;padding:.85rem 1rem;margin:.5rem 0 1rem;overflow-x:auto;
font:.9rem/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}}
dl{{display:grid;grid-template-columns:minmax(9rem,max-content) 1fr;gap:.32rem 1.3rem;margin:.6rem 0;font-size:.97rem}}
dt{{color:var(--muted)}}
dd{{margin:0;overflow-wrap:anywhere}}
footer{{color:var(--muted);font-size:.9rem;padding-top:.3rem;padding-bottom:2.5rem}}
@media (max-width:40rem){{body{{font-size:16px}}section{{padding:1.1rem 1rem;border-radius:10px}}h1{{font-size:1.65rem}}
dl{{grid-template-columns:1fr}}dt{{margin-top:.4rem}}ol.steps .took{{float:none;display:block;margin:0}}}}
@media print{{body{{font-size:10.5pt}}nav{{display:none}}section{{border:0;padding:0;margin:1.4rem 0}}
figure,table,.cards,.verdict,pre,ol.steps li{{break-inside:avoid}}h2,h3{{break-after:avoid}}pre{{white-space:pre-wrap}}
th,td{{padding:.3rem .5rem}}table,thead th{{font-size:9pt}}pre{{font-size:7.6pt;padding:.5rem .6rem}}
.scroll img{{min-width:0}}.table{{overflow:visible}}main,header,footer{{max-width:none}}}}
"""
