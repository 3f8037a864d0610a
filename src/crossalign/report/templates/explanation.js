/* The viewer of an explanation: one map at a time over either image, three linked planes, marked points. */

const viewer = document.getElementById("viewer");
const notice = document.getElementById("viewer-status");
const planeCanvases = [...viewer.querySelectorAll("canvas.plane")];
const smallCanvases = [...viewer.querySelectorAll("canvas.small")];
const control = (name) => viewer.querySelector(`[name="${name}"]`);
const chosen = (name) => viewer.querySelector(`[name="${name}"]:checked`).value;
const ticked = (name) => Boolean(control(name) && control(name).checked);
const MARK_COLOURS = { ring: "#7dff8a", cross: "#ff6ad5", square: "#6fd0ff" };

/* Where each display voxel of one axis lies between two voxels of the map: the lower one (-1 outside), and how far on. */
function stepsOf(map, data, axis) {
  const last = map.sizes[axis] - 1, lower = new Int16Array(data.sizes[axis]), share = new Float32Array(data.sizes[axis]);
  for (let index = 0; index < lower.length; index++) {
    const at = (data.origin_mm[axis] + index * data.spacing_mm - map.origin_mm[axis]) / map.spacing_mm;
    const inside = Math.min(last, Math.max(0, at));
    lower[index] = at < -0.5 || at >= last + 0.5 ? -1 : Math.floor(inside);
    share[index] = inside - Math.floor(inside);
  }
  return { lower, share };
}

const mix = (a, b, share) => a + (b - a) * share;

/* The map's value, 0 to 255, at a display voxel, trilinear; 0 outside the crop. No allocation: it runs for each pixel. */
function mapValue(map, x, y, z) {
  const [alongX, alongY, alongZ] = map.steps, width = map.sizes[0], height = map.sizes[1], bytes = map.bytes;
  const ax = alongX.lower[x], ay = alongY.lower[y], az = alongZ.lower[z];
  if (ax < 0 || ay < 0 || az < 0) return 0;
  const right = ax + 1 < width ? 1 : 0, down = ay + 1 < height ? width : 0, up = az + 1 < map.sizes[2] ? width * height : 0;
  const at = (az * height + ay) * width + ax, over = at + up, sx = alongX.share[x], sy = alongY.share[y];
  const near = mix(mix(bytes[at], bytes[at + right], sx), mix(bytes[at + down], bytes[at + down + right], sx), sy);
  const far = mix(mix(bytes[over], bytes[over + right], sx), mix(bytes[over + down], bytes[over + down + right], sx), sy);
  return mix(near, far, alongZ.share[z]);
}

/* One slice of the map in colour; the higher the value, the less is seen of what lies under it. */
function mapPicture(map, sizes, plane, index, ramp, strength) {
  const width = sizes[plane.column], height = sizes[plane.row], place = [0, 0, 0];
  const picture = new OffscreenCanvas(width, height), context = picture.getContext("2d");
  const image = context.createImageData(width, height), pixels = image.data;
  place[plane.through] = index;
  for (let j = 0, at = 0; j < height; j++) {
    place[plane.row] = plane.flip ? height - 1 - j : j;
    for (let i = 0; i < width; i++, at += 4) {
      place[plane.column] = i;
      const value = mapValue(map, place[0], place[1], place[2]), level = 3 * Math.round(value);
      for (let part = 0; part < 3; part++) pixels[at + part] = ramp[level + part];
      pixels[at + 3] = value * strength;
    }
  }
  context.putImageData(image, 0, 0);
  return picture;
}

function drawMark(context, x, y, shape, size) {
  context.beginPath();
  if (shape === "ring") context.arc(x, y, size, 0, 2 * Math.PI);
  if (shape === "square") context.rect(x - size, y - size, 2 * size, 2 * size);
  if (shape === "cross") {
    for (const way of [1, -1]) { context.moveTo(x - size, y - way * size); context.lineTo(x + size, y + way * size); }
  }
  for (const [colour, width] of [[SHADOW, size / 1.6], [MARK_COLOURS[shape], size / 3.2]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }
}

function startViewer(data, scans, outlines, maps, ramp) {
  const sizes = data.sizes, position = [...data.start_voxel];
  let waiting = false, travelled = 0;

  const map = () => maps[Number(control("map").value)];
  const scanName = (under) => (under === "fixed" ? "fixed" : `moving${map().stage}`);
  const sliceOf = (volume, plane) => takeSlice(volume, sizes, plane, position[plane.through]);
  const onScreenRow = (plane, row) => (plane.flip ? sizes[plane.row] - 1 - row : row);
  const toVoxel = (point) => point.map((mm, axis) => (mm - data.origin_mm[axis]) / data.spacing_mm);

  function drawMarks(context, frame, plane, under, size) {
    if (!ticked("marks")) return;
    for (const mark of map().marks) {
      if (mark.scan !== under) continue;
      const voxel = toVoxel(mark.point_mm), near = Math.abs(voxel[plane.through] - position[plane.through]) * data.spacing_mm;
      if (near > 4) continue; // a point is drawn on the slices within 4 mm of it
      const row = onScreenRow(plane, voxel[plane.row]);
      drawMark(context, frame.left + (voxel[plane.column] + 0.5) * frame.scale, frame.top + (row + 0.5) * frame.scale, mark.shape, size);
    }
  }

  function drawCanvas(canvas, under, small) {
    const context = canvas.getContext("2d"), plane = PLANES[canvas.dataset.plane], strength = control("strength").value / 100;
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / canvas.clientWidth;
    context.clearRect(0, 0, canvas.width, canvas.height);
    drawPicture(context, frame, scanPicture(sliceOf(scans[scanName(under)], plane), GREY));
    drawPicture(context, frame, mapPicture(map(), sizes, plane, position[plane.through], ramp, strength));
    if (ticked("outlines") && outlines.fixed) drawOutline(context, frame, sliceOf(outlines.fixed, plane), FIXED_LINE, (small ? 1 : 1.5) * unit);
    if (!small && ticked("crosshair")) drawCrosshair(context, frame, position[plane.column], onScreenRow(plane, position[plane.row]), 9 * unit);
    drawMarks(context, frame, plane, under, (small ? 4 : 7) * unit);
    if (!small) drawLabels(context, canvas, plane, 14 * unit, frame.scale / data.spacing_mm);
  }

  function sayPlaces() {
    for (const canvas of planeCanvases) {
      const through = PLANES[canvas.dataset.plane].through;
      viewer.querySelector(`[name="slice-${canvas.dataset.plane}"]`).value = position[through];
      document.getElementById(`place-${canvas.dataset.plane}`).textContent = `${placeName(through, position[through], data)} mm`;
    }
    document.getElementById("place").textContent = position.map((index, axis) => placeName(axis, index, data)).join(", ");
    document.getElementById("value").textContent = `At the crosshair ${(mapValue(map(), ...position) / 255).toFixed(2)}`;
    document.getElementById("peak").textContent = `1 (${map().peak})`;
    document.getElementById("strength-value").textContent = `${control("strength").value} %`;
    document.getElementById("shown").textContent = `Map: ${map().title}, over the ${chosen("under")} image.`;
    document.getElementById("marked").textContent = map().marks.map((mark) => `${mark.shape}: ${mark.words} (${mark.scan} image)`).join(" · ");
  }

  function drawAll() {
    waiting = false;
    for (const canvas of [...planeCanvases, ...smallCanvases]) {
      const side = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
      if (canvas.width !== side) canvas.width = canvas.height = side;
      drawCanvas(canvas, canvas.dataset.scan || chosen("under"), Boolean(canvas.dataset.scan));
    }
    sayPlaces();
    viewer.dataset.state = "ready";
  }

  function redraw() {
    if (!waiting) { waiting = true; requestAnimationFrame(drawAll); }
  }

  function moveTo(axis, index) {
    position[axis] = Math.min(sizes[axis] - 1, Math.max(0, Math.round(index)));
    redraw();
  }

  const moveToPoint = (point) => toVoxel(point).forEach((index, axis) => moveTo(axis, index));

  function toHottest() {
    const { bytes, sizes: [width, height], origin_mm, spacing_mm } = map();
    const at = bytes.indexOf(bytes.reduce((most, value) => Math.max(most, value), 0));
    const index = [at % width, Math.floor(at / width) % height, Math.floor(at / (width * height))];
    moveToPoint(index.map((step, axis) => origin_mm[axis] + step * spacing_mm));
  }

  function onMap() {
    viewer.querySelector(`[name="under"][value="${map().scan}"]`).checked = true;
    const marked = map().marks.find((mark) => mark.scan === "fixed");
    if (marked) moveToPoint(marked.point_mm);
    redraw();
  }

  function moveToPointer(event) {
    const canvas = event.currentTarget, plane = PLANES[canvas.dataset.plane], box = canvas.getBoundingClientRect();
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / box.width;
    const row = ((event.clientY - box.top) * unit - frame.top) / frame.scale - 0.5;
    moveTo(plane.column, ((event.clientX - box.left) * unit - frame.left) / frame.scale - 0.5);
    moveTo(plane.row, onScreenRow(plane, row));
  }

  function onKey(event) {
    const plane = PLANES[event.currentTarget.dataset.plane], down = plane.flip ? -1 : 1;
    const moves = {
      ArrowLeft: [plane.column, -1], ArrowRight: [plane.column, 1], ArrowUp: [plane.row, -down],
      ArrowDown: [plane.row, down], PageUp: [plane.through, 1], PageDown: [plane.through, -1],
    };
    const move = moves[event.key];
    if (!move || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    moveTo(move[0], position[move[0]] + move[1]);
  }

  function onWheel(event) {
    if (event.ctrlKey || event.deltaY === 0) return; // with Ctrl the page zooms
    event.preventDefault();
    travelled += event.deltaMode === 0 ? event.deltaY : 40 * event.deltaY; // touchpads send many small parts
    if (Math.abs(travelled) < 40) return;
    const through = PLANES[event.currentTarget.dataset.plane].through;
    moveTo(through, position[through] - Math.sign(travelled));
    travelled = 0;
  }

  for (const canvas of planeCanvases) {
    const through = PLANES[canvas.dataset.plane].through;
    const slider = viewer.querySelector(`[name="slice-${canvas.dataset.plane}"]`);
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); moveToPointer(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) moveToPointer(event); });
    canvas.addEventListener("keydown", onKey);
    canvas.addEventListener("wheel", onWheel, { passive: false });
    slider.max = sizes[through] - 1;
    slider.addEventListener("input", () => moveTo(through, Number(slider.value)));
  }
  viewer.addEventListener("input", redraw);
  control("map").addEventListener("change", onMap);
  document.getElementById("hottest").addEventListener("click", toHottest);
  document.getElementById("home").addEventListener("click", () => { position.splice(0, 3, ...data.start_voxel); redraw(); });
  const observer = new ResizeObserver(redraw);
  [...planeCanvases, ...smallCanvases].forEach((canvas) => observer.observe(canvas));
  drawBar(ramp);
  onMap();
}

function drawBar(ramp) {
  const canvas = document.getElementById("bar"), context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const at = 3 * Math.round((x / (canvas.width - 1)) * 255);
    context.fillStyle = `rgb(${ramp[at]}, ${ramp[at + 1]}, ${ramp[at + 2]})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

async function unpackMap(map, data) {
  const bytes = await unpack(map.values);
  if (bytes.length !== map.sizes.reduce((product, size) => product * size, 1)) throw new Error(`the map "${map.title}" is damaged`);
  return { ...map, bytes, steps: [0, 1, 2].map((axis) => stepsOf(map, data, axis)) };
}

async function openViewer() {
  if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") {
    throw new Error("this browser is too old; use Chrome or Edge 80, Firefox 113, Safari 16.4, or newer");
  }
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const voxels = data.sizes.reduce((product, size) => product * size, 1);
  const maps = await Promise.all(data.maps.map((map) => unpackMap(map, data)));
  startViewer(data, await unpackAll(data.scans, voxels), await unpackAll(data.outlines, voxels), maps, await unpack(data.ramp));
  notice.hidden = true;
}

openViewer().catch((error) => {
  viewer.dataset.state = "failed";
  notice.textContent = `The pictures cannot be shown: ${error.message}`;
});
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
