// Curves of R and speed over the episode and when each foot touches the ground. Drawn once, the playhead each frame.

class Timeline {
  constructor(canvas, recording, seek) {
    this.canvas = canvas;
    this.recording = recording;
    this.still = document.createElement("canvas"); // everything but the playhead
    this.position = 0;
    const scrub = (event) => seek(this.stepAt(event.clientX - canvas.getBoundingClientRect().left));
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      scrub(event);
    });
    canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && scrub(event));
    canvas.setAttribute("aria-label", describe(recording));
    new ResizeObserver(() => this.paint()).observe(canvas);
    this.paint();
  }

  stepAt(x) {
    const share = (x - this.left) / (this.right - this.left);
    return Math.max(0, Math.min(1, share)) * (this.recording.steps - 1);
  }

  xOf(step) {
    return this.left + ((this.right - this.left) * step) / Math.max(1, this.recording.steps - 1);
  }

  paint() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const ratio = Math.min(devicePixelRatio, 2);
    for (const canvas of [this.canvas, this.still]) {
      canvas.width = width * ratio;
      canvas.height = height * ratio;
    }
    const pen = this.still.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    this.left = 52;
    this.right = width - 46;
    this.height = height;
    const { recording } = this;
    const rows = recording.feet.length;
    const axis = 16, gap = 7, row = rows ? Math.max(5, Math.min(9, (height - axis) * 0.3 / rows - 2)) : 0;
    const gait = rows * (row + 2);
    const curves = height - axis - gait - 2 * gap;
    this.axis(pen, height - axis, height);
    this.curve(pen, recording.cumulative, 2, 0.55 * curves, "R", cssColor("--accent"), true);
    this.curve(pen, recording.speed, 0.55 * curves + gap, 0.45 * curves, "m/s", cssColor("--ink"), false);
    recording.feet.forEach((capsule, foot) => {
      const y = curves + 2 * gap + foot * (row + 2);
      this.contacts(pen, foot, y, row, cssColor(colorOf(recording.capsules[capsule].part)));
    });
    if (rows) this.label(pen, "contact", curves + 2 * gap + gait / 2);
    this.show(this.position);
  }

  axis(pen, top, bottom) {
    const { dt, steps } = this.recording;
    const seconds = (steps - 1) * dt;
    const room = Math.max(2, (this.right - this.left) / 64);
    const every = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 60].find((unit) => seconds / unit <= room) ?? 300;
    for (let t = 0; t <= seconds + 1e-9; t += every) {
      const x = this.xOf(t / dt);
      pen.fillStyle = cssColor("--line");
      pen.fillRect(x, 0, 1, top);
      pen.fillStyle = cssColor("--dim");
      pen.textAlign = "center";
      pen.fillText(`${Number(t.toFixed(2))} s`, x, bottom - 3);
    }
  }

  curve(pen, values, top, height, name, color, filled) {
    let low = 0, high = 0;
    for (const value of values) if (Number.isFinite(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
    if (high === low) high = low + 1;
    const y = (value) => top + height * (1 - (value - low) / (high - low));
    pen.beginPath();
    // More steps than pixels: one point a pixel is all that can be seen.
    const stride = Math.max(1, Math.floor(values.length / (2 * (this.right - this.left))));
    for (let t = 0; t < values.length; t += stride) pen.lineTo(this.xOf(t), y(values[t]));
    pen.strokeStyle = color;
    pen.lineWidth = 1.5;
    pen.lineJoin = "round";
    pen.stroke();
    if (filled) {
      pen.lineTo(this.right, y(0));
      pen.lineTo(this.left, y(0));
      pen.globalAlpha = 0.14;
      pen.fillStyle = color;
      pen.fill();
      pen.globalAlpha = 1;
    }
    pen.fillStyle = cssColor("--line");
    pen.fillRect(this.left, y(0), this.right - this.left, 1);
    this.label(pen, name, top + height / 2);
    pen.fillStyle = cssColor("--dim");
    pen.textAlign = "left";
    pen.fillText(Math.abs(high) >= 100 ? Math.round(high).toLocaleString("en") : high.toFixed(1), this.right + 6, y(high) + 8);
  }

  label(pen, text, y) {
    pen.fillStyle = cssColor("--dim");
    pen.textAlign = "right";
    pen.fillText(text, this.left - 8, y + 4);
  }

  contacts(pen, foot, y, height, color) {
    const { steps } = this.recording;
    pen.fillStyle = cssColor("--line");
    pen.fillRect(this.left, y + height / 2, this.right - this.left, 1);
    pen.fillStyle = color;
    for (let t = 0; t < steps; t++) {
      if (this.recording.clearanceAt(t, foot) >= 0) continue;
      const start = t;
      while (t + 1 < steps && this.recording.clearanceAt(t + 1, foot) < 0) t++;
      pen.fillRect(this.xOf(start - 0.5), y, Math.max(1, this.xOf(t + 0.5) - this.xOf(start - 0.5)), height);
    }
  }

  show(position) {
    this.position = position;
    const pen = this.canvas.getContext("2d");
    const ratio = this.canvas.width / this.canvas.clientWidth;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (this.still.width) pen.drawImage(this.still, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = cssColor("--ink");
    pen.fillRect(this.xOf(position) - 0.75, 0, 1.5, this.height - 15);
    pen.beginPath();
    pen.arc(this.xOf(position), 3, 3.5, 0, 2 * Math.PI);
    pen.fill();
  }
}

function describe({ steps, dt, cumulative, speed, feet, clearance }) {
  const mean = speed.reduce((sum, value) => sum + value, 0) / steps;
  const touching = feet.map((_, foot) => {
    let count = 0;
    for (let t = 0; t < steps; t++) count += clearance[t * feet.length + foot] < 0;
    return `foot ${foot + 1} ${Math.round((100 * count) / steps)}%`;
  });
  const contact = touching.length ? ` Time on the ground: ${touching.join(", ")}.` : "";
  return `${(steps * dt).toFixed(1)} s; R ${cumulative[steps - 1].toFixed(0)}; mean speed ${mean.toFixed(2)} m/s.${contact}`;
}
