// The recording: JSON with base64 arrays, unpacked once into typed arrays. Knows nothing of drawing.

function bytes(base64) {
  const text = atob(base64);
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out.buffer;
}

function decodeRecording(json) {
  const recording = JSON.parse(json);
  for (const name of ["reward", "cumulative", "speed", "clearance"]) {
    recording[name] = new Float32Array(bytes(recording[name]));
  }
  // Poses are 16-bit steps between the smallest and largest value of each (link, component).
  const { low, step, data } = recording.poses;
  const packed = new Uint16Array(bytes(data));
  const width = low.length;
  const poses = new Float32Array(packed.length);
  for (let i = 0; i < packed.length; i++) poses[i] = low[i % width] + step[i % width] * packed[i];
  recording.poses = poses;
  recording.duration = (recording.steps - 1) * recording.dt;
  recording.clearanceAt = (step, foot) => recording.clearance[step * recording.feet.length + foot];
  return recording;
}
