"use strict";
// Zooming and pointing; the picture is complete without it.
//
// The data: at, took (ms), out (0 ok, 1 fail, 2 info), who, text, end are columns of the dots;
// texts their repeated words; latency is [top, height, power at the bottom, power at the top];
// faults are [kind, what, from ms, to ms or null]; leaders are [from ms, term, node].
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const timeline = document.getElementById("timeline");
  const panes = [...timeline.querySelectorAll("svg.pane")];
  const axis = document.getElementById("axis");
  const terms = [...timeline.querySelectorAll("text.term")];
  const dots = [...timeline.querySelectorAll("path.dots")];
  const cursor = timeline.querySelector(".cursor");
  const chosen = timeline.querySelector(".chosen");
  const catcher = timeline.querySelector(".catch");
  const tip = document.getElementById("tip");
  const whole = document.getElementById("whole");
  const last = data.last_ms;
  const least = Math.min(last, 1);
  let from = 0;
  let to = last;

  const order = data.at.map((_, i) => i).sort((a, b) => data.at[a] - data.at[b]);
  const times = order.map((i) => data.at[i]);

  const length = (ms) =>
    ms < 1 ? `${(ms * 1000).toFixed(0)} µs` : ms < 10 ? `${ms.toFixed(2)} ms`
      : ms < 1000 ? `${ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(2)} s`;
  const moment = (ms, digits = 3) => {
    const sign = ms < 0 ? "-" : "";
    const s = Math.abs(ms) / 1000;
    const h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
    const rest = (s % 60).toFixed(digits);
    if (!h && !m && digits) return `${sign}${rest} s`;
    const padded = rest.padStart(digits ? digits + 3 : 2, "0");
    return h ? `${sign}${h}:${String(m).padStart(2, "0")}:${padded}` : `${sign}${m}:${padded}`;
  };

  const element = (name, attributes, text) => {
    const made = document.createElementNS(timeline.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const STEPS = [];
  for (const power of [0.01, 0.1, 1, 10, 100]) STEPS.push(power, 2 * power, 5 * power);
  for (const s of [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200]) {
    STEPS.push(s * 1000);
  }

  const drawAxis = () => {
    const y = Number(axis.dataset.y);
    const step = STEPS.find((s) => (to - from) / s <= 13) || (to - from) / 13;
    const digits = step >= 1000 ? 0 : Math.min(5, Math.ceil(-Math.log10(step / 1000)));
    axis.replaceChildren();
    for (let ms = Math.ceil(from / step) * step; ms <= to + step / 1e6; ms += step) {
      const x = data.left + ((ms - from) / (to - from)) * data.pane;
      axis.append(
        element("path", { class: "mark", d: `M${x},${y}v5` }),
        element("text", { class: "tick", x, y: y + 18, "text-anchor": "middle" },
          moment(ms, digits)));
    }
  };

  const show = (a, b) => {
    if (b - a < least) { const middle = (a + b) / 2; a = middle - least / 2; b = a + least; }
    from = Math.max(0, a);
    to = Math.min(last, b);
    const scale = data.pane / last;
    for (const pane of panes) {
      const height = pane.viewBox.baseVal.height;
      pane.setAttribute("viewBox", `${from * scale} 0 ${(to - from) * scale} ${height}`);
    }
    for (const text of terms) {
      const place = (units) => ((units / scale - from) / (to - from)) * data.pane;
      const left = Math.max(0, place(Number(text.dataset.from)));
      const right = Math.min(data.pane, place(Number(text.dataset.to)));
      text.toggleAttribute("hidden", right - left < 6.6 * text.textContent.length + 8);
      text.setAttribute("x", data.left + (left + right) / 2);
    }
    const seen = times.reduce((n, time) => n + (time >= from && time <= to), 0);
    for (const path of dots) path.classList.toggle("few", seen <= 3000);
    drawAxis();
    whole.hidden = from === 0 && to === last;
  };

  const near = (ms, y) => {
    const [top, height, low, high] = data.latency;
    if (y < top || y > top + height) return -1;
    const reach = ((to - from) / data.pane) * 9;
    let i = times.findIndex((time) => time >= ms - reach);
    let best = -1, nearest = 81;
    for (; i >= 0 && i < times.length && times[i] <= ms + reach; i++) {
      const point = order[i];
      const dx = ((data.at[point] - ms) / (to - from)) * data.pane;
      const share = (Math.log10(Math.max(data.took[point], 0.001)) - low) / (high - low);
      const dy = top + height * (1 - share) - y;
      const distance = dx * dx + dy * dy;
      if (distance < nearest) { nearest = distance; best = point; }
    }
    return best;
  };

  const told = (ms, y) => {
    const words = [moment(ms)];
    const leader = data.leaders.filter((each) => each[0] <= ms).pop();
    if (leader) words.push(leader[2] ? `${leader[2]} leads, term ${leader[1]}` : "nobody leads");
    for (const [kind, what, begin, end] of data.faults) {
      const slack = (to - from) / data.pane;
      if (begin - slack <= ms && (end === null || ms <= end + slack)) {
        if (words.length > 9) { words.push("…"); break; }
        words.push(`${kind} ${what}`);
      }
    }
    const point = near(ms, y);
    if (point >= 0) {
      words.push("", `process ${data.who[point]}: ${data.texts[data.text[point]]}`,
        `${["ok", "fail", "info"][data.out[point]]} ${data.texts[data.end[point]]} after ` +
        length(data.took[point]));
    }
    return words.join("\n");
  };

  const where = (event) => {
    const box = timeline.getBoundingClientRect();
    const unit = timeline.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * unit;
    const inside = Math.min(Math.max(x - data.left, 0), data.pane);
    return { x: data.left + inside, y: (event.clientY - box.top) * unit,
      ms: from + (inside / data.pane) * (to - from) };
  };

  let begun = null;
  catcher.addEventListener("pointermove", (event) => {
    const { x, y, ms } = where(event);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.toggleAttribute("hidden", false);
    if (begun) {
      chosen.toggleAttribute("hidden", false);
      chosen.setAttribute("x", Math.min(x, begun.x));
      chosen.setAttribute("width", Math.abs(x - begun.x));
    }
    tip.textContent = begun
      ? `${moment(Math.min(ms, begun.ms))} to ${moment(Math.max(ms, begun.ms))}\n` +
        length(Math.abs(ms - begun.ms))
      : told(ms, y);
    tip.hidden = false;
    const right = event.clientX + 18 + tip.offsetWidth > window.innerWidth;
    tip.style.left = `${right ? event.clientX - tip.offsetWidth - 14 : event.clientX + 16}px`;
    tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
  });
  catcher.addEventListener("pointerleave", () => {
    if (begun) return;
    tip.hidden = true;
    cursor.toggleAttribute("hidden", true);
  });
  catcher.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    begun = where(event);
    catcher.setPointerCapture(event.pointerId);
  });
  const end = (event) => {
    if (!begun) return;
    const other = where(event);
    const wide = Math.abs(other.x - begun.x) > 5;
    const [a, b] = [begun.ms, other.ms].sort((one, two) => one - two);
    begun = null;
    chosen.toggleAttribute("hidden", true);
    if (wide && event.type === "pointerup") show(a, b);
  };
  catcher.addEventListener("pointerup", end);
  catcher.addEventListener("pointercancel", end);
  catcher.addEventListener("dblclick", () => show(0, last));
  whole.addEventListener("click", () => show(0, last));

  for (const link of document.querySelectorAll("a[data-from]")) {
    link.addEventListener("click", () => {
      const [a, b] = [Number(link.dataset.from), Number(link.dataset.to)];
      const room = Math.max((b - a) * 0.6, last / 200);
      show(a - room, b + room);
    });
  }

  const copy = document.getElementById("copy");
  if (navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", () => {
      navigator.clipboard.writeText(copy.previousElementSibling.textContent).then(() => {
        copy.textContent = "copied";
      });
    });
  }
  document.getElementById("hint").append(
    " Drag over the picture to look closer, double-click for the whole run.");
  show(0, last);
})();
