// What the replay page uses of three.js; see README.md for the command that bundles it.
export {
  AmbientLight, BufferAttribute, BufferGeometry, CanvasTexture, CapsuleGeometry, Color, DirectionalLight, Fog, Group,
  HemisphereLight, Line, LineBasicMaterial, Mesh, MeshBasicMaterial, MeshStandardMaterial, PCFShadowMap,
  PerspectiveCamera, PlaneGeometry, Quaternion, RepeatWrapping, RingGeometry, Scene, SphereGeometry, SRGBColorSpace,
  Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
