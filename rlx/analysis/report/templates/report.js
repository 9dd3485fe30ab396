for (const head of document.querySelectorAll('th[data-sort]')) head.addEventListener('click', () => {
  const at = [...head.parentNode.children].indexOf(head), body = head.closest('table').tBodies[0];
  const key = row => { const cell = row.children[at], value = cell.dataset.v ?? cell.textContent;
    return value !== '' && !isNaN(value) ? [0, +value] : [value === '' ? 2 : 1, value]; };
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
  const numbers = text => text.split(',').map(Number);
  const [x0, x1, a0, a1] = numbers(svg.dataset.x), [y0, y1, b0, b1] = numbers(svg.dataset.y);
  const lines = [...svg.querySelectorAll('polyline:not(.grey)')].map(
    line => [line, line.getAttribute('points').split(' ').map(numbers)]);
  svg.addEventListener('mouseleave', () => { tip.hidden = true; });
  svg.addEventListener('mousemove', event => {
    const size = svg.getBoundingClientRect(), at = (event.clientX - size.left) * svg.viewBox.baseVal.width / size.width;
    const step = x0 + (Math.min(a1, Math.max(a0, at)) - a0) / (a1 - a0) * (x1 - x0);
    tip.replaceChildren(Object.assign(document.createElement('div'), {textContent: round(Math.round(step))}));
    for (const [line, points] of lines) {
      if (at < points[0][0] - 8 || at > points[points.length - 1][0] + 8) continue;
      const i = Math.max(1, points.findIndex(p => p[0] >= at)), [p, q] = [points[i - 1], points[i] ?? points[i - 1]];
      const share = q[0] > p[0] ? Math.min(1, Math.max(0, (at - p[0]) / (q[0] - p[0]))) : 0;
      const value = y0 + (p[1] + share * (q[1] - p[1]) - b0) / (b1 - b0) * (y1 - y0), row = document.createElement('div');
      row.textContent = round(value) + '  ' + line.dataset.name; row.style.color = getComputedStyle(line).stroke;
      tip.append(row);
    }
    tip.hidden = false;
    const x = event.clientX - size.left;
    tip.style.left = Math.max(0, Math.min(x + 14, size.width - tip.offsetWidth)) + 'px'; tip.style.top = '2.2em';
  });
}
for (const strip of document.querySelectorAll('.strip')) {
  const [slider, output] = [strip.querySelector('input'), strip.querySelector('output')];
  slider.addEventListener('input', () => strip.querySelectorAll('iframe').forEach((frame, i) => {
    frame.hidden = i !== +slider.value;
    if (!frame.hidden) output.textContent = frame.dataset.step;
  }));
}
