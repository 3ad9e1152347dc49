// Time, buttons and keys: moves one position (a fractional control step) and shows it everywhere.

const recording = decodeRecording(document.getElementById("recording").textContent);
const $ = (id) => document.getElementById(id);
const last = recording.steps - 1;
let position = 0, playing = false, rate = 1, looping = true, then = 0;

$("title").textContent = recording.title;
$("details").textContent = recording.details.map(([label, value]) => `${label} ${value}`).join(" · ");
$("scrub").max = last;

let stage = null;
if (hasWebGL()) {
  stage = new Stage($("view"), recording);
} else {
  $("no-webgl").hidden = false;
  $("follow").disabled = $("home").disabled = true;
}
const timeline = new Timeline($("timeline"), recording, seek);

function show() {
  const step = Math.min(Math.floor(position + 1e-6), last);
  const time = position * recording.dt;
  const x = recording.poses[step * recording.links * 7] - recording.poses[0];
  $("return").textContent = format(recording.cumulative[step], 0);
  $("speed").textContent = format(recording.speed[step], 2);
  $("distance").textContent = format(x, 1);
  $("reward").textContent = format(recording.reward[step], 2);
  $("clock").textContent = `${time.toFixed(2)} / ${recording.duration.toFixed(2)} s`;
  $("scrub").value = step;
  $("scrub").setAttribute("aria-valuetext", `${time.toFixed(2)} seconds, R ${format(recording.cumulative[step], 0)}`);
  timeline.show(position);
  stage?.show(position);
}

function format(value, digits) {
  if (!Number.isFinite(value)) return "–";
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
}

function seek(step) {
  position = Math.max(0, Math.min(last, step));
  show();
}

function setPlaying(value) {
  playing = value && last > 0;
  if (playing && position >= last) position = 0;
  $("play").classList.toggle("playing", playing);
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
}

function setLooping(value) {
  looping = value;
  $("loop").setAttribute("aria-pressed", looping);
}

function setFollowing(value) {
  stage?.setFollowing(value);
  $("follow").setAttribute("aria-pressed", value);
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  repaint();
}

function repaint() {
  stage?.paint();
  timeline.paint();
}

function changeRate(by) {
  const select = $("rate");
  select.selectedIndex = Math.max(0, Math.min(select.options.length - 1, select.selectedIndex + by));
  rate = Number(select.value);
}

$("play").onclick = () => setPlaying(!playing);
$("loop").onclick = () => setLooping(!looping);
$("follow").onclick = () => setFollowing(!stage.following);
$("home").onclick = () => stage.resetCamera();
$("theme").onclick = switchTheme;
$("rate").onchange = () => changeRate(0);
$("scrub").oninput = () => seek(Number($("scrub").value));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);

const second = Math.round(1 / recording.dt);
const KEYS = {
  " ": () => setPlaying(!playing),
  k: () => setPlaying(!playing),
  ArrowLeft: (event) => seek(Math.ceil(position) - (event.shiftKey ? second : 1)),
  ArrowRight: (event) => seek(Math.floor(position + 1e-6) + (event.shiftKey ? second : 1)),
  Home: () => seek(0),
  End: () => seek(last),
  ArrowUp: () => changeRate(1),
  ArrowDown: () => changeRate(-1),
  f: () => stage && setFollowing(!stage.following),
  c: () => stage?.resetCamera(),
  l: () => setLooping(!looping),
  t: switchTheme,
};
addEventListener("keydown", (event) => {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const native = event.target.closest?.("select") || (key === " " && event.target.closest?.("button"));
  if (!KEYS[key] || native || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (key.startsWith("Arrow") && key !== "ArrowUp" && key !== "ArrowDown") setPlaying(false);
  KEYS[key](event);
});

function tick(now) {
  const elapsed = Math.min((now - then) / 1000, 0.25); // a page in the background does not catch up
  then = now;
  if (playing) {
    position += (elapsed * rate) / recording.dt;
    if (position > last) {
      position = looping ? position % last : last;
      if (!looping) setPlaying(false);
    }
    show();
  }
  stage?.draw();
  requestAnimationFrame(tick);
}

// For scripts and tests: what is shown, and the same controls as the buttons.
window.replay = {
  play: () => setPlaying(true),
  pause: () => setPlaying(false),
  seek: (seconds) => seek(seconds / recording.dt),
  get state() {
    return { seconds: position * recording.dt, duration: recording.duration, playing, rate, looping, webgl: Boolean(stage) };
  },
  get camera() {
    return stage && stage.camera.position.toArray();
  },
};

show();
setPlaying(!matchMedia("(prefers-reduced-motion: reduce)").matches);
requestAnimationFrame((now) => {
  then = now;
  tick(now);
});
