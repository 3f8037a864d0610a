/* A page with NiiVue: volumes on their own grids in linked planes and in 3-D, and the controls that both kinds of page have.

   A page's own script calls `openViewer` with a function of (nv, data, volumes) that returns
   - changed(name): called after each control, with its name;
   - slice(): lines of GLSL that change the overlay's colour `ocolor` at `texPos` before it is laid over the base;
   - values(): texts by the id of the element that shows them.

   NiiVue's millimetres are RAS; the page shows LPS, as everything else of crossalign does. */

const viewer = document.getElementById("viewer");
const control = (name) => viewer.querySelector(`[name="${name}"]`);
const selected = (name) => viewer.querySelector(`[name="${name}"]:checked`)?.value;
const ticked = (name) => Boolean(control(name) && control(name).checked);
const FIXED_COLOUR = [63, 224, 240], MOVING_COLOUR = [255, 106, 213];
const LAYOUTS = { planes: 3, solid: 3, axial: 0, coronal: 1, sagittal: 2, render: 4 };
const LAST_LINES = "\tocolor.a *= overlayAlpha;", DRAWN = "\tfloat drawV = texture(drawing, texPos).r;";
const LINE_WIDTH = 1.6; // of outlines, in pixels of the screen

/* "L 12.0": a coordinate (LPS, mm) with the letter of its side. */
const SIDES = [["L", "R"], ["P", "A"], ["S", "I"]];
const sideName = (value, axis) => `${SIDES[axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`;
const toLps = ([x, y, z]) => [-x, -y, z];
const plain = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(6))) : "–");

/* NiiVue itself is in the page as gzip; the page's policy allows this one script by its hash. */
async function loadLibrary() {
  const bytes = Uint8Array.from(atob(document.getElementById("niivue").textContent), (one) => one.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.head.append(script);
  if (!globalThis.niivue) throw new Error("this browser did not run the viewer (NiiVue)");
}

async function loadVolume(name, one, colormap) {
  const loaded = await niivue.NVImage.loadFromBase64({
    base64: one.nifti, name: `${name}.nii.gz`, colormap, cal_min: one.low, cal_max: one.high, trustCalMinMax: false,
  });
  loaded.cal_min = one.low;
  loaded.cal_max = one.high;
  return loaded;
}

/* The value of the voxel at a point (RAS, mm), or NaN outside. */
function valueAt(volume, mm) {
  const voxel = [...volume.mm2vox(mm, true)].map(Math.round);
  const inside = voxel.every((index, axis) => index >= 0 && index < volume.dimsRAS[axis + 1]);
  return inside ? volume.getValue(voxel[0], voxel[1], voxel[2]) : NaN;
}

/* NiiVue's own program for planes, with this page's lines in it: what is done to the overlay, and outlines on top. */
function sliceProgram(nv, lines) {
  const gl = nv.gl, [source] = gl.getAttachedShaders(nv.sliceMMShader.program)
    .filter((shader) => gl.getShaderParameter(shader, gl.SHADER_TYPE) === gl.FRAGMENT_SHADER)
    .map((shader) => gl.getShaderSource(shader));
  const start = source.indexOf(DRAWN), end = source.indexOf("\tvec4 pcolor"), close = source.lastIndexOf("}");
  if (start < 0 || end < start || !source.includes(LAST_LINES)) throw new Error("this NiiVue is not the one it was made for");
  const rgb = (colour) => `vec3(${colour.map((part) => (part / 255).toFixed(4)).join(", ")})`;
  const neighbours = ["right", "-right", "down", "-down"].map((way) => `here & ~int(texture(drawing, texPos + ${way}).r * 255.0 + 0.5)`);
  const outlines = `
  vec3 right = ${LINE_WIDTH.toFixed(1)} * dFdx(texPos), down = ${LINE_WIDTH.toFixed(1)} * dFdy(texPos);
  int here = int(texture(drawing, texPos).r * 255.0 + 0.5), edge = ${neighbours.map((one) => `(${one})`).join(" | ")};
  if ((edge & 2) != 0) color.rgb = ${rgb(MOVING_COLOUR)};
  if ((edge & 1) != 0) color.rgb = ${rgb(FIXED_COLOUR)};
`;
  const body = source.slice(0, start) + source.slice(end, close) + outlines + source.slice(close);
  return body.replace(LAST_LINES, `${lines}\n${LAST_LINES}`);
}

/* Mark the masks' voxels on the base's grid: bit 1 the fixed mask, bit 2 the moving one. */
function drawMasks(nv, masks, matrices) {
  if (!masks.some(Boolean)) return;
  const base = nv.volumes[0], [, width, height, depth] = base.dimsRAS;
  const bits = new Uint8Array(width * height * depth), toMm = transposed(base.matRAS);
  masks.forEach((mask, number) => {
    if (mask) markMask(bits, [width, height, depth], multiplied(inverted(matrices[number]), toMm), mask, 1 << number);
  });
  nv.createEmptyDrawing();
  nv.drawBitmap.set(bits);
  nv.refreshDrawing(false);
}

function markMask(bits, [width, height, depth], matrix, mask, bit) {
  const [, sizeX, sizeY, sizeZ] = mask.hdr.dims, values = mask.img, [[ax, bx, cx, dx], [ay, by, cy, dy], [az, bz, cz, dz]] = matrix;
  for (let k = 0, at = 0; k < depth; k++) {
    for (let j = 0; j < height; j++) {
      let x = bx * j + cx * k + dx + 0.5, y = by * j + cy * k + dy + 0.5, z = bz * j + cz * k + dz + 0.5;
      for (let i = 0; i < width; i++, at++, x += ax, y += ay, z += az) {
        if (x < 0 || y < 0 || z < 0 || x >= sizeX || y >= sizeY || z >= sizeZ) continue;
        if (values[Math.floor(x) + sizeX * (Math.floor(y) + sizeY * Math.floor(z))]) bits[at] |= bit;
      }
    }
  }
}

const transposed = (m) => [0, 1, 2, 3].map((row) => [0, 1, 2, 3].map((column) => m[row * 4 + column]));
const multiplied = (a, b) => a.map((row) => [0, 1, 2, 3].map((column) => row.reduce((sum, value, k) => sum + value * b[k][column], 0)));

/* The inverse of an affine matrix (4 x 4). */
function inverted(m) {
  const [[a, b, c], [d, e, f], [g, h, i]] = m;
  const cofactors = [[e * i - f * h, c * h - b * i, b * f - c * e], [f * g - d * i, a * i - c * g, c * d - a * f], [d * h - e * g, b * g - a * h, a * e - b * d]];
  const determinant = a * cofactors[0][0] + b * cofactors[1][0] + c * cofactors[2][0];
  const rows = cofactors.map((row) => row.map((value) => value / determinant));
  return [...rows.map((row) => [...row, -row.reduce((sum, value, k) => sum + value * m[k][3], 0)]), [0, 0, 0, 1]];
}

/* Put the crosshair on a point (RAS, mm). */
function lookAt(nv, mm) {
  nv.scene.crosshairPos = nv.mm2frac(mm);
  nv.createOnLocationChange();
  nv.drawScene();
}

/* Magnify the planes about the crosshair. */
function zoomTo(nv, zoom) {
  const [low, high] = nv.sceneExtentsMinMax(true), mm = nv.frac2mm(nv.scene.crosshairPos);
  const pan = zoom <= 1 ? [0, 0, 0] : [0, 1, 2].map((axis) => (low[axis] + high[axis]) / 2 - zoom * mm[axis]);
  nv.setPan2Dxyzmm([...pan, zoom]);
}

function setLayout(nv, name) {
  nv.opts.multiplanarShowRender = name === "solid" ? 1 : 0;
  nv.setSliceType(LAYOUTS[name]);
}

function newNiivue() {
  const nv = new niivue.Niivue({
    isRadiologicalConvention: true, isSliceMM: true, backColor: [0, 0, 0, 1], crosshairColor: [1, 0.85, 0.2, 0.8], crosshairWidth: 0.7, crosshairWidthUnit: "mm",
    crosshairGap: 6, show3Dcrosshair: true, multiplanarShowRender: 0, multiplanarLayout: 0, multiplanarPadPixels: 4, dragMode: 3,
    dragAndDropEnabled: false, isRuler: true, rulerColor: [1, 0.85, 0.2, 0.8], rulerWidth: 2, showLegend: false, logLevel: "error",
    meshThicknessOn2D: 4, isCornerOrientationText: false, showAllOrientationMarkers: true, fontColor: [0.95, 0.95, 0.9, 1], loadingText: "", sagittalNoseLeft: true,
    isAntiAlias: true, scrollRequiresFocus: false,
  });
  for (const key of ["clipPlaneHotKey", "cycleClipPlaneHotKey", "viewModeHotKey"]) nv.opts[key] = "";
  return nv;
}

/* Each image's window: two sliders that move its darkest and its brightest value. */
function connectWindows(nv, volumes) {
  for (const slider of viewer.querySelectorAll("[data-window]")) {
    const volume = volumes[slider.dataset.window], end = slider.dataset.end;
    slider.addEventListener("input", () => {
      const other = control(`${slider.dataset.window}-${end === "low" ? "high" : "low"}`);
      if (control(`${slider.dataset.window}-low`).valueAsNumber >= control(`${slider.dataset.window}-high`).valueAsNumber) other.value = slider.value;
      volume.cal_min = control(`${slider.dataset.window}-low`).valueAsNumber;
      volume.cal_max = Math.max(control(`${slider.dataset.window}-high`).valueAsNumber, volume.cal_min + 1e-6);
      nv.updateGLVolume();
    });
  }
}

function onKey(event) {
  const found = viewer.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (!found || event.ctrlKey || event.metaKey || event.altKey) return;
  const buttons = [...found.querySelectorAll("input[type=radio]")];
  if (buttons.length) buttons[(buttons.findIndex((one) => one.checked) + 1) % buttons.length].click();
  else found.click();
  event.preventDefault();
}

function connectCommon(nv, data, redraw) {
  control("layout").addEventListener("change", () => setLayout(nv, control("layout").value));
  control("zoom").addEventListener("input", () => zoomTo(nv, control("zoom").valueAsNumber));
  control("crosshair").addEventListener("change", () => nv.setCrosshairWidth(ticked("crosshair") ? 0.7 : 0));
  document.getElementById("center").addEventListener("click", () => { lookAt(nv, data.start_mm); zoomTo(nv, control("zoom").valueAsNumber); });
  for (const button of document.querySelectorAll("[data-point]")) {
    button.addEventListener("click", () => { lookAt(nv, JSON.parse(button.dataset.point)); zoomTo(nv, control("zoom").valueAsNumber); viewer.scrollIntoView(); });
  }
  viewer.addEventListener("input", redraw);
  viewer.addEventListener("keydown", onKey);
  document.getElementById("canvas").addEventListener("contextmenu", (event) => event.preventDefault());
}

/* Draw colours (256 of red, green and blue) over a middle grey, each as opaque as `opacity` of its level, 0 to 1, says. */
function drawColourBar(colours, opacity = () => 1) {
  const canvas = document.getElementById("bar"), context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x < canvas.width; x++) {
    const level = x / (canvas.width - 1), alpha = opacity(level), grey = 110;
    const [r, g, b] = colours[Math.round(level * 255)].map((part) => (1 - alpha) * grey + alpha * part);
    context.fillStyle = `rgb(${r}, ${g}, ${b})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

/* Add a colour map of NiiVue's by its 256 colours. */
function addColours(nv, name, colours) {
  const [R, G, B] = [0, 1, 2].map((part) => colours.map((colour) => colour[part]));
  nv.addColormap(name, { R, G, B, A: R.map(() => 255), I: R.map((_, index) => index) });
}

function showTexts(nv, page) {
  const position = toLps(nv.frac2mm(nv.scene.crosshairPos));
  document.getElementById("position").textContent = position.map(sideName).join(", ");
  for (const output of viewer.querySelectorAll("output[data-of]")) output.textContent = `${plain(Number(control(output.dataset.of).value))}${output.dataset.unit}`;
  for (const [id, text] of Object.entries(page.values())) document.getElementById(id).textContent = text;
}

async function startViewer(data, prepare) {
  const nv = newNiivue();
  await nv.attachToCanvas(document.getElementById("canvas"));
  const page = await prepare(nv, data);
  const redraw = (event) => {
    page.changed(event?.target?.name);
    showTexts(nv, page);
    nv.drawScene();
  };
  nv.onLocationChange = () => showTexts(nv, page);
  connectCommon(nv, data, redraw);
  connectWindows(nv, page.volumes);
  setLayout(nv, control("layout").value);
  lookAt(nv, data.start_mm);
  zoomTo(nv, control("zoom").valueAsNumber);
  redraw();
  globalThis.crossalignViewer = { nv, ...page };
}

/* Start NiiVue; where it cannot run, say why and leave the still pictures. */
async function openViewer(prepare) {
  const notice = document.getElementById("viewer-status");
  try {
    if (!document.createElement("canvas").getContext("webgl2")) {
      throw new Error("this browser offers no WebGL2 (it may be switched off, or the graphics driver blocked)");
    }
    await loadLibrary();
    await startViewer(JSON.parse(document.getElementById("viewer-data").textContent), prepare);
    notice.hidden = true;
    viewer.dataset.state = "ready";
  } catch (error) {
    viewer.dataset.state = "still";
    notice.textContent = `The movable pictures cannot be shown: ${error.message}. The still pictures below show the middle of the structure; another browser (Firefox, Chrome, Edge, Safari of 2023 or newer) shows the rest.`;
  }
}

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
