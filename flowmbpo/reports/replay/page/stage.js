// The 3D scene: bodies, ground, contact rings, camera. Shows any fractional step; knows nothing of time or buttons.

const HOME = [-1.5, 1.55, 3.3]; // camera relative to what it looks at: the run goes along +x, to the right
const LOOK_HEIGHT = 0.42;
const SMOOTHING = 24; // control steps on either side over which the followed path is averaged

function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function hasWebGL() {
  const probe = document.createElement("canvas").getContext("webgl2");
  probe?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(probe);
}

class Stage {
  constructor(canvas, recording) {
    this.recording = recording;
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = THREE.PCFShadowMap;
    this.scene = new THREE.Scene();
    this.scene.fog = new THREE.Fog(0, 9, 34);
    this.camera = new THREE.PerspectiveCamera(38, 1, 0.05, 120);
    this.following = true;
    this.stale = true;
    this.path = smoothPath(recording);
    this.center = new THREE.Vector3(this.path[0], LOOK_HEIGHT, this.path[1]);
    this.controls = new THREE.OrbitControls(this.camera, canvas);
    this.controls.enableDamping = true;
    this.controls.dampingFactor = 0.12;
    this.controls.maxPolarAngle = 1.54; // stay above the ground
    this.controls.minDistance = 0.8;
    this.controls.maxDistance = 40;
    this.controls.addEventListener("change", () => (this.stale = true));
    this.addLights();
    this.addGround();
    this.addMarks();
    this.addTrail();
    this.addBody();
    this.paint();
    this.resetCamera();
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    this.resize();
    this.show(0);
  }

  addLights() {
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x8a93a3, 1.7));
    this.sun = new THREE.DirectionalLight(0xfff4e2, 2.4);
    this.sun.castShadow = true;
    this.sun.shadow.mapSize.set(1024, 1024);
    this.sun.shadow.radius = 4;
    this.sun.shadow.bias = -0.0006;
    Object.assign(this.sun.shadow.camera, { left: -2.6, right: 2.6, top: 2.6, bottom: -2.6, near: 1, far: 14 });
    this.scene.add(this.sun, this.sun.target);
  }

  addGround() {
    const size = 160; // m; squares of 1 m, so the texture repeats every 2 m
    this.groundTexture = new THREE.CanvasTexture(document.createElement("canvas"));
    this.groundTexture.image.width = this.groundTexture.image.height = 256;
    this.groundTexture.wrapS = this.groundTexture.wrapT = THREE.RepeatWrapping;
    this.groundTexture.repeat.set(size / 2, size / 2);
    this.groundTexture.anisotropy = this.renderer.capabilities.getMaxAnisotropy();
    this.groundTexture.colorSpace = THREE.SRGBColorSpace;
    const material = new THREE.MeshStandardMaterial({ map: this.groundTexture, roughness: 1 });
    this.ground = new THREE.Mesh(new THREE.PlaneGeometry(size, size), material);
    this.ground.rotation.x = -Math.PI / 2;
    this.ground.receiveShadow = true;
    this.scene.add(this.ground);
  }

  addMarks() {
    // A line across the path every 5 m of x, with its distance painted on the ground.
    const { path } = this;
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < path.length; i += 2) [low, high] = [Math.min(low, path[i]), Math.max(high, path[i])];
    this.marks = [];
    for (let x = 5 * Math.floor(low / 5) - 5; x <= high + 15; x += 5) {
      let at = 0;
      while (at < path.length - 2 && path[at] < x) at += 2;
      const line = flat(0.045, 5, new THREE.MeshBasicMaterial({ transparent: true, opacity: 0.75 }));
      line.position.set(x, 0.006, path[at + 1]);
      const texture = new THREE.CanvasTexture(document.createElement("canvas"));
      Object.assign(texture.image, { width: 256, height: 128 });
      texture.colorSpace = THREE.SRGBColorSpace;
      texture.anisotropy = this.groundTexture.anisotropy;
      const label = flat(1.1, 0.55, new THREE.MeshBasicMaterial({ map: texture, transparent: true }));
      label.position.set(x + 0.62, 0.007, path[at + 1] + 1.05);
      this.scene.add(line, label);
      this.marks.push({ line, label, text: `${x} m` });
    }
  }

  addTrail() {
    const { poses, steps, links } = this.recording;
    const points = new Float32Array(steps * 3);
    for (let t = 0; t < steps; t++) points.set([poses[t * links * 7], 0.01, poses[t * links * 7 + 2]], t * 3);
    const geometry = new THREE.BufferGeometry();
    geometry.setAttribute("position", new THREE.BufferAttribute(points, 3));
    this.trail = new THREE.Line(geometry, new THREE.LineBasicMaterial({ transparent: true, opacity: 0.8 }));
    this.scene.add(this.trail);
  }

  addBody() {
    const { links, capsules, feet } = this.recording;
    this.links = Array.from({ length: links }, () => new THREE.Group());
    this.scene.add(...this.links);
    this.materials = new Map(); // CSS colour name -> material
    for (const capsule of capsules) {
      const name = colorOf(capsule.part);
      if (!this.materials.has(name)) {
        this.materials.set(name, new THREE.MeshStandardMaterial({ roughness: 0.55, metalness: 0.05 }));
      }
      // Joints are two equal balls in one place; a hair's difference keeps them from flickering through each other.
      const radius = capsule.radius * (name === "--limb" ? 1.012 : 1);
      const mesh = new THREE.Mesh(capsuleGeometry({ ...capsule, radius }), this.materials.get(name));
      mesh.castShadow = mesh.receiveShadow = true;
      this.links[capsule.link].add(mesh);
    }
    this.rings = feet.map((foot) => {
      const { end, link, part } = capsules[foot];
      const material = new THREE.MeshBasicMaterial({ transparent: true, opacity: 0.9, depthWrite: false });
      const ring = new THREE.Mesh(new THREE.RingGeometry(0.1, 0.135, 40).rotateX(-Math.PI / 2), material);
      this.scene.add(ring);
      return { ring, link: this.links[link], end: new THREE.Vector3(...end), color: colorOf(part) };
    });
  }

  paint() {
    // Take every colour from the page, so that light and dark are defined once, in CSS.
    const sky = new THREE.Color(cssColor("--sky"));
    this.scene.background = sky;
    this.scene.fog.color = sky;
    const { image } = this.groundTexture;
    const pen = image.getContext("2d");
    pen.fillStyle = cssColor("--ground-a");
    pen.fillRect(0, 0, 256, 256);
    pen.fillStyle = cssColor("--ground-b");
    pen.fillRect(0, 0, 128, 128);
    pen.fillRect(128, 128, 128, 128);
    this.groundTexture.needsUpdate = true;
    for (const { line, label, text } of this.marks) {
      line.material.color.set(cssColor("--mark"));
      const brush = label.material.map.image.getContext("2d");
      brush.clearRect(0, 0, 256, 128);
      brush.fillStyle = cssColor("--mark");
      brush.font = "600 84px system-ui, sans-serif";
      brush.textAlign = "center";
      brush.textBaseline = "middle";
      brush.fillText(text, 128, 66, 250);
      label.material.map.needsUpdate = true;
    }
    this.trail.material.color.set(cssColor("--accent"));
    for (const [name, material] of this.materials) material.color.set(cssColor(name));
    for (const { ring, color } of this.rings) ring.material.color.set(cssColor(color));
    this.stale = true;
  }

  show(position) {
    const { poses, steps, links } = this.recording;
    const before = Math.min(Math.floor(position), steps - 1);
    const after = Math.min(before + 1, steps - 1);
    const part = position - before;
    this.links.forEach((group, link) => {
      const a = (before * links + link) * 7, b = (after * links + link) * 7;
      group.position.fromArray(poses, a).lerp(scratch.fromArray(poses, b), part);
      group.quaternion.fromArray(poses, a + 3).slerp(turned.fromArray(poses, b + 3), part).normalize();
    });
    this.scene.updateMatrixWorld();
    this.rings.forEach(({ ring, link, end }, foot) => {
      ring.visible = this.recording.clearanceAt(before, foot) < 0;
      ring.position.copy(end).applyMatrix4(link.matrixWorld).setY(0.012);
    });
    this.trail.geometry.setDrawRange(0, before + 1);
    const x = this.path[2 * before] + part * (this.path[2 * after] - this.path[2 * before]);
    const z = this.path[2 * before + 1] + part * (this.path[2 * after + 1] - this.path[2 * before + 1]);
    const root = this.links[0].position;
    this.sun.target.position.set(root.x, 0, root.z);
    this.sun.position.set(root.x + 1.8, 6.2, root.z + 2.6);
    this.ground.position.set(2 * Math.round(root.x / 2), 0, 2 * Math.round(root.z / 2));
    if (this.following) this.moveTo(x, z);
    this.center.set(x, LOOK_HEIGHT, z);
    this.stale = true;
  }

  moveTo(x, z) {
    scratch.set(x - this.controls.target.x, 0, z - this.controls.target.z);
    this.controls.target.add(scratch);
    this.camera.position.add(scratch);
  }

  setFollowing(following) {
    this.following = following;
    if (following) this.moveTo(this.center.x, this.center.z);
    this.stale = true;
  }

  resetCamera() {
    this.controls.target.copy(this.center);
    this.camera.position.copy(this.center).add(scratch.set(...HOME).multiplyScalar(this.camera.aspect < 1 ? 1.5 : 1));
    this.stale = true;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.renderer.domElement.parentElement;
    if (!width || !height) return;
    const wasUpright = this.camera.aspect < 1;
    this.renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    if (wasUpright !== this.camera.aspect < 1) this.resetCamera();
    this.stale = true;
  }

  draw() {
    this.controls.update(); // damping; fires "change" while the camera still moves
    if (!this.stale) return;
    this.stale = false;
    this.renderer.render(this.scene, this.camera);
  }
}

const scratch = new THREE.Vector3();
const turned = new THREE.Quaternion();

function colorOf(part) {
  const leg = part.match(/^foot (\d+)$/);
  if (leg) return `--leg-${((Number(leg[1]) - 1) % 4) + 1}`;
  return part.match(/^(stub|upper) /) ? "--limb" : "--torso";
}

function flat(width, depth, material) {
  return new THREE.Mesh(new THREE.PlaneGeometry(width, depth).rotateX(-Math.PI / 2), material);
}

function capsuleGeometry({ start, end, radius }) {
  const from = new THREE.Vector3(...start), along = new THREE.Vector3(...end).sub(from);
  const length = along.length();
  if (length === 0) return new THREE.SphereGeometry(radius, 48, 32).translate(from.x, from.y, from.z);
  const turn = new THREE.Quaternion().setFromUnitVectors(new THREE.Vector3(0, 1, 0), along.clone().normalize());
  const middle = from.addScaledVector(along, 0.5);
  return new THREE.CapsuleGeometry(radius, length, 12, 28).applyQuaternion(turn).translate(middle.x, middle.y, middle.z);
}

function smoothPath({ poses, steps, links }) {
  // x and z of the first link, averaged over a window, so that the camera does not shake with every stride.
  const path = new Float32Array(2 * steps);
  for (let t = 0; t < steps; t++) {
    const reach = Math.min(SMOOTHING, t, steps - 1 - t);
    for (let s = t - reach; s <= t + reach; s++) {
      path[2 * t] += poses[s * links * 7] / (2 * reach + 1);
      path[2 * t + 1] += poses[s * links * 7 + 2] / (2 * reach + 1);
    }
  }
  return path;
}
