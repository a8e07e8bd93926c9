'use strict';
(() => {
  const run = JSON.parse(document.getElementById('run').textContent), place = document.getElementById('explorer');
  const [LEFT, RIGHT, TOP, BOTTOM] = [58, 16, 16, 44];
  let [W, H] = [760, 400];
  const svgs = place.querySelector('svg').namespaceURI;
  const make = (name, attributes = {}, ...inner) => {
    const isSvg = ['svg', 'g', 'text', 'line', 'circle', 'path', 'title'].includes(name);
    const element = isSvg ? document.createElementNS(svgs, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...inner);
    return element;
  };
  const figure = (value) => value >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(3)));
  const percent = (value) => (100 * value).toFixed(1) + '%';
  const costOf = (each, cost) => each.costs[cost.name] / cost.size;
  const isUsual = (cost) => ['latency_us', 'file_bytes'].includes(cost.name);
  const told = (each, cost) => `${figure(costOf(each, cost))} ${cost.unit}${isUsual(cost) ? '' : ` ${cost.label}`}`;
  const known = (each) => run.costs.filter((cost) => each.costs[cost.name] !== undefined);
  const described = (each) =>
    [`${percent(each.search)} of the search split right`, ...known(each).map((cost) => told(each, cost))].join(', ');
  const front = run.members.filter((each) => each.front);
  const limits = {};
  const accuracies = run.members.map((each) => each.search), [least, most] = [Math.min(...accuracies), Math.max(...accuracies)];
  // Of the trials, those are shown that are not far below all models.
  const lowest = Math.max(least - (most - least), Math.min(least, ...run.trials.map((each) => each.search)));

  const meets = (each) => Object.entries(limits).every(([name, limit]) =>
    name === 'accuracy' ? each.search >= limit : each.costs[name] <= limit);
  const chosen = () => front.filter(meets).sort((a, b) =>
    b.search - a.search || (a.costs.latency_us ?? 0) - (b.costs.latency_us ?? 0))[0];
  const flag = ([name, limit]) => name === 'accuracy' ? `--constraint='accuracy>=${Math.floor(1000 * limit) / 10}%'`
    : `--constraint='${name}<=${Math.ceil(limit)}'`;

  const ticksOf = (low, high, isLog) => {
    const found = [];
    if (isLog && high / low > 8) {
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    } else {
      const rough = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= rough);
      for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) found.push(value);
    }
    return found.filter((value) => value >= low && value <= high);
  };

  const scaleOf = (values, from, to, isLog) => {
    const bend = isLog ? Math.log10 : (value) => value;
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const pad = 0.06 * (bend(most) - bend(least)) || 0.05;
    const [low, high] = [bend(least) - pad, bend(most) + pad];
    const scale = (value) => from + (to - from) * (bend(value) - low) / (high - low);
    const back = isLog ? (value) => 10 ** value : (value) => value;
    return Object.assign(scale, {ticks: ticksOf(back(low), back(high), isLog)});
  };

  const draw = () => {
    W = Math.min(Math.max(place.clientWidth, 320), 760);  // So that letters stay as large on a phone.
    H = W < 500 ? 320 : 400;
    const cost = run.costs[select.value], isLog = log.checked, shown = run.members.filter((each) => cost.name in each.costs);
    const x = scaleOf(shown.map((each) => costOf(each, cost)), LEFT, W - RIGHT, isLog);
    const y = scaleOf([...shown.map((each) => each.search), lowest], H - BOTTOM, TOP, false), best = chosen();
    const svg = make('svg', {viewBox: `0 0 ${W} ${H}`, role: 'img', 'aria-label': `Accuracy over ${cost.label}`});
    for (const tick of x.ticks) {
      svg.append(make('line', {class: 'grid', x1: x(tick), x2: x(tick), y1: TOP, y2: H - BOTTOM}));
      svg.append(make('text', {x: x(tick), y: H - BOTTOM + 18, 'text-anchor': 'middle'}, figure(tick)));
    }
    for (const tick of y.ticks) {
      svg.append(make('line', {class: 'grid', x1: LEFT, x2: W - RIGHT, y1: y(tick), y2: y(tick)}));
      svg.append(make('text', {x: LEFT - 6, y: y(tick) + 4, 'text-anchor': 'end'}, figure(100 * tick)));
    }
    svg.append(make('text', {x: (LEFT + W - RIGHT) / 2, y: H - 6, 'text-anchor': 'middle'}, `${cost.label}, ${cost.unit}`));
    svg.append(make('text', {x: 14, y: H / 2, 'text-anchor': 'middle', transform: `rotate(-90 14 ${H / 2})`}, 'accuracy, %'));
    const inside = (px, py) => px > LEFT && px < W - RIGHT && py > TOP && py < H - BOTTOM;
    for (const trial of run.trials.filter((each) => cost.name in each.costs)) {
      const [px, py] = [x(costOf(trial, cost)), y(trial.search)];
      if (inside(px, py)) svg.append(make('circle', {class: 'trial', cx: px, cy: py, r: 2.5}));
    }
    const edge = [];  // What no other beats in this view.
    for (const each of shown.slice().sort((a, b) => costOf(a, cost) - costOf(b, cost) || b.search - a.search))
      if (!edge.length || each.search > edge[edge.length - 1].search) edge.push(each);
    const points = edge.map((each) => `${x(costOf(each, cost)).toFixed(1)} ${y(each.search).toFixed(1)}`);
    svg.append(make('path', {class: 'line', d: `M${points.join(' L')}`}));
    const boxes = [];
    for (const each of shown.slice().sort((a, b) => (b === best) - (a === best) || b.search - a.search)) {
      const [px, py] = [x(costOf(each, cost)), y(each.search)];
      const kinds = ['member', each.front ? '' : 'beaten', meets(each) ? '' : 'out', each === best ? 'chosen' : ''];
      const title = make('title', {}, `${each.name}: ${described(each)}; ${each.text}`);
      const point = make('circle', {class: kinds.join(' '), cx: px, cy: py, r: 6, tabindex: 0, 'data-name': each.name}, title);
      const show = () => document.getElementById(`bits-${each.name}`)?.scrollIntoView({behavior: 'smooth', block: 'center'});
      point.addEventListener('click', show);
      point.addEventListener('keydown', (event) => event.key === 'Enter' && show());
      for (const event of ['mouseenter', 'focus']) point.addEventListener(event, () => { hint.textContent = title.textContent; });
      svg.append(point);
      const box = {left: px + 8, right: px + 12 + 8 * each.name.length, top: py - 16, bottom: py};
      const isFree = box.right < W && boxes.every((other) =>
        box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
      if (isFree) {
        boxes.push(box);
        svg.append(make('text', {class: 'name', x: px + 9, y: py - 5}, each.name));
      }
      boxes.push({left: px - 6, right: px + 6, top: py - 6, bottom: py + 6});
    }
    view.replaceChildren(svg);
    const asked = Object.entries(limits).map(flag);
    choice.replaceChildren(best ? `${best.name}: ${described(best)}. ` : 'No model of the front meets all limits. ',
      make('code', {}, ['daqu-choose RUN', ...asked].join(' ')));
  };

  const sliderOf = (name, label, values, text, isLeast) => {
    const ordered = [...new Set(values)].sort((a, b) => isLeast ? a - b : b - a);
    if (ordered.length < 2) return [];
    const output = make('output', {}, 'any');
    const range = {type: 'range', min: 0, max: ordered.length - 1, value: 0};
    const slider = make('input', {...range, 'aria-label': label, 'data-limit': name});
    slider.addEventListener('input', () => {
      const limit = ordered[slider.value];
      if (slider.value === '0') delete limits[name]; else limits[name] = limit;
      output.textContent = slider.value === '0' ? 'any' : text(limit);
      draw();
    });
    return [make('label', {}, label), slider, output];
  };

  const options = run.costs.map((cost, index) => make('option', {value: index}, cost.label));
  const select = make('select', {'aria-label': 'cost'}, ...options);
  const log = make('input', {type: 'checkbox', id: 'log'});
  log.checked = true;
  const [view, hint, choice] = [make('div'), make('p', {class: 'dim'}), make('p', {class: 'choice', 'aria-live': 'polite'})];
  hint.textContent = 'Point at a model for its figures; a click leads to its layers. Hollow ones are dominated, faint ones miss a limit.';
  const controls = make('div', {class: 'controls'}, make('span', {}, 'over'), select,
    make('label', {for: 'log'}, log, ' logarithmic'),
    ...sliderOf('accuracy', 'accuracy at least', front.map((each) => each.search), percent, true),
    ...run.costs.flatMap((cost) => sliderOf(cost.name, `${cost.label} at most`,
      front.map((each) => each.costs[cost.name]).filter((value) => value !== undefined),
      (limit) => `${figure(limit / cost.size)} ${cost.unit}`, false)));
  for (const control of [select, log]) control.addEventListener('input', draw);
  window.addEventListener('resize', draw);
  place.replaceChildren(view, hint, controls, choice);
  draw();
  document.getElementById('still').hidden = true;

  for (const table of document.querySelectorAll('.wide table')) {
    const [head, ...rows] = table.rows, number = (row, index) => parseFloat(row.cells[index].textContent.replace(/[(,]/g, ''));
    [...head.cells].forEach((cell, index) => {
      cell.className = 'sorts';
      cell.addEventListener('click', () => {
        const down = cell.dataset.down !== 'true';
        cell.dataset.down = down;
        const order = (a, b) => {
          const [p, q] = [number(a, index), number(b, index)];
          if (Number.isNaN(p) || Number.isNaN(q)) return a.cells[index].textContent.localeCompare(b.cells[index].textContent);
          return p - q;
        };
        rows.sort((a, b) => (down ? -1 : 1) * order(a, b));
        head.parentNode.append(...rows);
      });
    });
  }
})();
