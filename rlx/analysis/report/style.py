"""How the page of a report looks, and the little that moves on it. See rlx.language.show.html, whose look it shares."""

STYLE = """
:root { --paper: #fff; --ink: #1c1e21; --faint: #5b6270; --line: #d8dae0; --soft: #f4f5f7; --bad: #b3261e;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b3548f; --c4: #b37a00; --c5: #3a9fd6; --c6: #4b3fa8; --c7: #555; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e4e6ea; --faint: #9aa2ad; --line: #3a3e46;
  --soft: #1f2228; --bad: #ff8a80; --c0: #56b4e9; --c1: #ff9d4d; --c2: #35c79b; --c3: #e296c3; --c4: #f0c04a;
  --c5: #8fd0ff; --c6: #a79cff; --c7: #c8c8c8; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; margin: 0 auto;
  padding: 1.5em; max-width: 1240px; }
h1 { font-size: 1.5em; margin: 0 0 .2em; overflow-wrap: anywhere; } h2 { font-size: 1.15em; margin: 2em 0 .5em; }
h3 { font-size: 1em; margin: 1.2em 0 .3em; } p { margin: .3em 0; }
.faint, th, dt, figcaption { color: var(--faint); font-weight: normal; } .bad { color: var(--bad); }
.scroll { overflow-x: auto; max-width: 100%; } table { border-collapse: collapse; margin-top: .4em; }
th, td { text-align: left; vertical-align: top; padding: .3em 1em .3em 0; border-bottom: 1px solid var(--line); }
th { white-space: nowrap; } th[data-sort] { cursor: pointer; } th[data-sort]:hover { color: var(--ink); }
td { font-variant-numeric: tabular-nums; } td.n, th.n { text-align: right; white-space: nowrap; }
td.label { min-width: 14em; overflow-wrap: anywhere; } td.error { min-width: 16em; overflow-wrap: anywhere; }
code, pre { font: 12.5px/1.5 ui-monospace, monospace; } p code { overflow-wrap: anywhere; }
td code { white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .7em .9em; border-radius: 6px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1.2em; margin: .4em 0; }
dd { margin: 0; overflow-wrap: anywhere; } summary { cursor: pointer; color: var(--faint); margin: .4em 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1em 1.5em; }
figure { margin: 0; position: relative; min-width: 0; max-width: 760px; } figcaption { margin-bottom: .2em; }
svg.chart { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--faint); }
.grid { stroke: var(--line); stroke-width: 1; } .axis { stroke: var(--faint); fill: none; }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; } polygon { opacity: .16; stroke: none; }
polyline.grey { stroke: var(--faint); opacity: .3; stroke-width: 1; } circle.grey { fill: var(--faint); opacity: .4; }
polyline.best { stroke: var(--c2); stroke-width: 1.5; } circle.done { fill: var(--c0); opacity: .85; }
circle.pruned { fill: none; stroke: var(--c1); stroke-width: 1.5; } path.failed { stroke: var(--bad); stroke-width: 2; }
path.running { stroke: var(--faint); stroke-width: 1.5; }
.legend { display: flex; flex-wrap: wrap; gap: .1em 1.2em; margin: .3em 0 .2em; }
.legend i { display: inline-block; width: 1.4em; height: 0; border-top: 3px solid; margin-right: .4em;
  vertical-align: middle; }
.legend b { font-weight: normal; overflow-wrap: anywhere; }
.swatch { display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .5em; }
.media { display: flex; flex-wrap: wrap; gap: 1.5em; } .media img { max-width: 100%; border: 1px solid var(--line); }
.tip { position: absolute; pointer-events: none; background: var(--paper); border: 1px solid var(--line);
  padding: .3em .6em; border-radius: 4px; font-size: 12px; white-space: nowrap; z-index: 2;
  max-width: 100%; overflow: hidden; }
@media (max-width: 600px) { body { padding: 1em; } svg text { font-size: 19px; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4em; } }
@media print { :root { --paper: #fff; --ink: #000; --faint: #444; --line: #ccc; --soft: #f4f4f4; --bad: #a00;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b3548f; --c4: #b37a00; --c5: #3a9fd6; --c6: #4b3fa8; --c7: #555; }
  body { max-width: none; padding: 0; font-size: 11px; } figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; } .tip { display: none; } }
""" + "".join(
    f"polyline.c{i} {{ stroke: var(--c{i}); }} polygon.c{i}, circle.c{i}, rect.c{i} {{ fill: var(--c{i}); }} "
    f".swatch.c{i} {{ background: var(--c{i}); }} .legend i.c{i} {{ border-color: var(--c{i}); }}\n"
    for i in range(8)
)

SCRIPT = """
for (const head of document.querySelectorAll('th[data-sort]')) head.addEventListener('click', () => {
  const at = [...head.parentNode.children].indexOf(head), body = head.closest('table').tBodies[0];
  const key = row => { const cell = row.children[at], said = cell.dataset.v ?? cell.textContent;
    return said !== '' && !isNaN(said) ? [0, +said] : [said === '' ? 2 : 1, said]; };
  const up = head.dataset.sort === 'up'; head.dataset.sort = up ? 'down' : 'up';
  const rows = [...body.rows].sort((a, b) => { const p = key(a), q = key(b);
    if (p[0] !== q[0]) return p[0] - q[0];
    const less = p[1] < q[1] ? -1 : p[1] > q[1] ? 1 : 0; return up ? -less : less; });
  body.append(...rows);
});
const round = x => Math.abs(x) >= 1e4 || Number.isInteger(x) ? Math.round(x).toLocaleString('en') : +x.toPrecision(4);
for (const svg of document.querySelectorAll('svg.curves')) {
  const box = svg.parentNode, tip = Object.assign(document.createElement('div'), {className: 'tip', hidden: true});
  box.append(tip);
  const numbers = said => said.split(',').map(Number);
  const [x0, x1, a0, a1] = numbers(svg.dataset.x), [y0, y1, b0, b1] = numbers(svg.dataset.y);
  const lines = [...svg.querySelectorAll('polyline:not(.grey)')].map(
    line => [line, line.getAttribute('points').split(' ').map(numbers)]);
  svg.addEventListener('mouseleave', () => { tip.hidden = true; });
  svg.addEventListener('mousemove', event => {
    const size = svg.getBoundingClientRect(), at = (event.clientX - size.left) * 640 / size.width;
    const step = x0 + (Math.min(a1, Math.max(a0, at)) - a0) / (a1 - a0) * (x1 - x0);
    tip.replaceChildren(Object.assign(document.createElement('div'), {textContent: round(Math.round(step))}));
    for (const [line, points] of lines) {
      if (at < points[0][0] - 8 || at > points[points.length - 1][0] + 8) continue;
      const near = points.reduce((p, q) => Math.abs(q[0] - at) < Math.abs(p[0] - at) ? q : p);
      const value = y0 + (near[1] - b0) / (b1 - b0) * (y1 - y0), row = document.createElement('div');
      row.textContent = round(value) + '  ' + line.dataset.name; row.style.color = getComputedStyle(line).stroke;
      tip.append(row);
    }
    tip.hidden = false;
    const x = event.clientX - size.left;
    tip.style.left = Math.max(0, Math.min(x + 14, size.width - tip.offsetWidth)) + 'px'; tip.style.top = '2.2em';
  });
}
"""
