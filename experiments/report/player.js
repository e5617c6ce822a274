// The player of recorded episodes: two panels, time, gradient steps, and rewards with a cursor, all in sync.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("rollouts-data").textContent);
  const byId = (id) => document.getElementById(id);
  const play = byId("play"), time = byId("time"), step = byId("step"), speed = byId("speed");
  const panels = { before: byId("panel-before"), after: byId("panel-after") };
  const chart = byId("rewards");
  const state = { task: 0, time: 0, playing: false, last: null };  // time in environment steps
  const images = new Map();

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const counted = (n, name) => `${n} ${name}${n === 1 ? "" : "s"}`;
  const stepName = (n) => (n === 0 ? "before adaptation" : `after ${counted(n, "gradient step")}`);
  const number = (value) => value.toFixed(1).replace("-", "−");
  const shownStep = (panel) => (panel === "before" ? 0 : Number(step.value));
  const length = (s) => data.lengths[s][state.task];

  function sheet(s, task) {  // pictures of one episode, decoded when they are first shown
    const key = `${s}/${task}`;
    if (!images.has(key)) {
      if (images.size >= 2 * data.steps) images.delete(images.keys().next().value);
      const image = new Image();
      image.onload = draw;
      image.src = data.sheets[s][task];
      images.set(key, image);
    }
    return images.get(key);
  }

  function fitted(canvas) {  // its drawing context, in units of the page's pixels
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif";
    return { context, width, height };
  }

  function drawClip(canvas, s, t) {
    const image = sheet(s, state.task);
    if (!image.complete || !image.naturalWidth) return;
    const frame = Math.min(Math.floor(t / data.stride + 1e-6), data.counts[s][state.task] - 1);
    const [w, h] = data.size;
    const { context, width, height } = fitted(canvas);
    context.imageSmoothingQuality = "high";
    const x = (frame % data.columns) * w, y = Math.floor(frame / data.columns) * h;
    context.drawImage(image, x, y, w, h, 0, 0, width, height);
  }

  function drawPath(canvas, s, t) {
    const { context, width, height } = fitted(canvas);
    const [x0, x1, y0, y1] = data.extent;
    const scale = Math.min(width / (x1 - x0), height / (y1 - y0));
    const place = ([x, y]) => [width / 2 + (x - (x0 + x1) / 2) * scale, height / 2 - (y - (y0 + y1) / 2) * scale];
    const dot = (point, radius, fill) => {
      context.fillStyle = fill;
      context.beginPath();
      context.arc(...place(point), radius, 0, 2 * Math.PI);
      context.fill();
    };
    context.strokeStyle = colour("line");
    const [left, top] = place([-0.5, 0.5]), [right, bottom] = place([0.5, -0.5]);
    context.strokeRect(left, top, right - left, bottom - top);
    const path = data.motion[s][state.task], end = Math.min(t, length(s));
    const strokeTo = (last, width_, alpha) => {
      context.lineWidth = width_;
      context.globalAlpha = alpha;
      context.strokeStyle = s === 0 ? colour("before") : colour("after");
      context.beginPath();
      path.slice(0, last + 1).forEach((p, i) => (i ? context.lineTo(...place(p)) : context.moveTo(...place(p))));
      context.stroke();
      context.globalAlpha = 1;
    };
    strokeTo(path.length - 1, 1, 0.35);
    strokeTo(Math.floor(end), 2.5, 1);
    dot(path[0], 4, colour("muted"));
    dot(data.goals[state.task], 8, colour("goal"));
    dot(path[Math.floor(end)], 6, s === 0 ? colour("before") : colour("after"));
  }

  function drawLines(canvas, s, t) {
    const { context, width, height } = fitted(canvas);
    const values = data.motion[s][state.task], rows = data.names.length;
    const horizon = data.horizon, gap = 18, row = height / rows;
    data.names.forEach((name, i) => {
      const [low, high] = data.ranges[i];
      const y = (v) => row * (i + 1) - 6 - ((v - low) / (high - low || 1)) * (row - gap - 6);
      context.fillStyle = colour("muted");
      context.fillText(name, 6, row * i + 13);
      context.strokeStyle = s === 0 ? colour("before") : colour("after");
      context.lineWidth = 1.5;
      context.beginPath();
      values.forEach((v, n) => context.lineTo((n / horizon) * width, y(v[i])));
      context.stroke();
    });
    cursor(context, (Math.min(t, length(s)) / horizon) * width, height);
  }

  function cursor(context, x, height) {
    context.strokeStyle = colour("ink");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, height);
    context.stroke();
  }

  function ticks(low, high) {  // round numbers, two to five of them
    const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const gap = [1, 2, 5, 10].find((n) => n * power >= rough) * power;
    const found = [];
    for (let n = Math.ceil(low / gap); n * gap <= high; n++) found.push(Number((n * gap).toPrecision(6)));
    return found;
  }

  function drawRewards(t) {
    const { context, width, height } = fitted(chart);
    const left = 46, bottom = 22, top = 8, right = 8;
    const shown = [[0, "before"], [Number(step.value), "after"]].filter(([s, name]) => s || name === "before");
    const values = data.rewards.flatMap((stage) => stage[state.task]);
    let low = Math.min(...values), high = Math.max(...values);
    if (high - low < 1e-9) [low, high] = [low - 1, high + 1];
    const x = (n) => left + (n / data.horizon) * (width - left - right);
    const y = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
    context.fillStyle = colour("muted");
    context.textAlign = "right";
    for (const v of ticks(low, high)) {
      context.fillText(String(v).replace("-", "−"), left - 6, y(v) + 4);
      context.strokeStyle = colour("line");
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(left, y(v));
      context.lineTo(width - right, y(v));
      context.stroke();
    }
    context.fillText(data.unit === "s" ? `${(data.horizon * data.seconds).toFixed(1)} s` : `step ${data.horizon}`,
      width - right, height - 5);
    context.textAlign = "left";
    context.fillText("0", left, height - 5);
    for (const [s, name] of shown) {
      context.strokeStyle = colour(name);
      context.lineWidth = name === "before" ? 1.25 : 1.75;
      context.beginPath();
      data.rewards[s][state.task].forEach((v, n) => context.lineTo(x(n + 1), y(v)));
      context.stroke();
    }
    cursor(context, x(t), height - bottom + 4);
    for (const [s, name] of shown) {
      const rewards = data.rewards[s][state.task], n = Math.min(Math.floor(t), rewards.length) - 1;
      if (n < 0) continue;
      context.fillStyle = colour(name);
      context.beginPath();
      context.arc(x(n + 1), y(rewards[n]), 4, 0, 2 * Math.PI);
      context.fill();
    }
  }

  const drawers = { clips: drawClip, paths: drawPath, lines: drawLines };

  function caption(panel, s) {
    const ended = length(s) < data.horizon ? ` · ended after ${counted(length(s), "step")}` : "";
    const name = stepName(s);
    byId(`caption-${panel}`).textContent = name[0].toUpperCase() + name.slice(1);
    byId(`return-${panel}`).textContent =
      `return ${number(data.returns[s][state.task])}${ended} · mean of ${counted(data.episodes, "episode")} ` +
      number(data.mean_returns[s][state.task]);
    if (data.travelled) {
      const metres = data.travelled[s][state.task][Math.min(Math.floor(state.time), length(s))];
      byId(`travelled-${panel}`).textContent = `${metres.toFixed(2).replace("-", "−")} m`;
    }
    panels[panel].setAttribute("aria-label", `${data.tasks[state.task]}, ${name}`);
  }

  function draw() {
    const t = state.time;
    for (const panel of ["before", "after"]) {
      drawers[data.kind](panels[panel], shownStep(panel), t);
      caption(panel, shownStep(panel));
    }
    drawRewards(t);
    time.value = String(Math.floor(t));
    const now = data.unit === "s" ? `${(t * data.seconds).toFixed(2)} s` : `step ${Math.floor(t)} of ${data.horizon}`;
    byId("time-value").textContent = now;
    time.setAttribute("aria-valuetext", now);
    step.setAttribute("aria-valuetext", stepName(Number(step.value)));
    byId("step-value").textContent = step.value;
  }

  function tick(now) {
    if (!state.playing) return;
    const passed = state.last === null ? 0 : (now - state.last) / 1000;
    state.last = now;
    state.time += (passed * Number(speed.value)) / data.seconds;
    if (state.time > data.horizon + 0.4 * Number(speed.value) / data.seconds) state.time = 0;  // rests at the end
    const t = state.time;
    state.time = Math.min(t, data.horizon);
    draw();
    state.time = t;
    requestAnimationFrame(tick);
  }

  function setPlaying(playing) {
    state.time = state.time >= data.horizon ? (playing ? 0 : data.horizon) : state.time;
    state.playing = playing;
    state.last = null;
    play.setAttribute("aria-pressed", String(playing));
    play.setAttribute("aria-label", playing ? "Pause" : "Play");
    play.title = playing ? "Pause" : "Play";
    if (playing) requestAnimationFrame(tick);
    else draw();
  }

  function moveTo(t) {
    state.time = Math.max(0, Math.min(data.horizon, t));
    draw();
  }

  function setStep(n) {
    step.value = String(Math.max(0, Math.min(data.steps - 1, n)));
    draw();
  }

  play.addEventListener("click", () => setPlaying(!state.playing));
  time.addEventListener("input", () => moveTo(Number(time.value)));
  step.addEventListener("input", draw);
  for (const choice of document.querySelectorAll("input[name=task]")) {
    choice.addEventListener("change", () => {
      state.task = Number(choice.value);
      draw();
    });
  }
  const scrub = (event) => {
    const box = chart.getBoundingClientRect();
    moveTo(((event.clientX - box.left - 46) / (box.width - 54)) * data.horizon);
  };
  chart.addEventListener("pointerdown", (event) => {
    chart.setPointerCapture(event.pointerId);
    scrub(event);
  });
  chart.addEventListener("pointermove", (event) => event.buttons && scrub(event));

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target, kind = target.tagName;
    const arrows = { ArrowLeft: -1, ArrowRight: 1 };
    if (event.key === " " && !["BUTTON", "SELECT", "SUMMARY", "A"].includes(kind)) setPlaying(!state.playing);
    else if (event.key in arrows && !["INPUT", "SELECT"].includes(kind)) {
      moveTo(Math.floor(state.time) + arrows[event.key] * data.stride);
    } else if (["ArrowUp", "ArrowDown"].includes(event.key) && target.id === "player") {
      setStep(Number(step.value) + (event.key === "ArrowUp" ? 1 : -1));
    } else if (/^[0-9]$/.test(event.key) && kind !== "SELECT") setStep(Number(event.key));
    else return;
    event.preventDefault();
  });
  window.addEventListener("resize", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
