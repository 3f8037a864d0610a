/* The viewer: one position in three linked planes, canvases made of layers, and the controls that change both.

   A page's own script calls `openViewer` with a function that unpacks the page's data and returns
   - layers(scan, view): the layers of a small picture of `scan`, or of a plane (null);
   - describe(position): texts by the id of the element that shows them;
   - connect(actions), where it has controls of its own. */

const viewer = document.getElementById("viewer");
const control = (name) => viewer.querySelector(`[name="${name}"]`);
const selected = (name) => viewer.querySelector(`[name="${name}"]:checked`).value;
const ticked = (name) => Boolean(control(name) && control(name).checked);

function startViewer(data, page) {
  const sizes = data.sizes, position = [...data.start_voxel], canvases = [...viewer.querySelectorAll("canvas[data-plane]")];
  let waiting = false, travelled = 0;

  function draw(canvas) {
    const side = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1))); // device pixels
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const plane = PLANES[canvas.dataset.plane], small = Boolean(canvas.dataset.scan), context = canvas.getContext("2d");
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / canvas.clientWidth;
    const view = { canvas, context, plane, small, frame, unit, position, data, pixelsPerMm: frame.scale / data.spacing_mm };
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (const layer of page.layers(canvas.dataset.scan || null)) layer(view);
    if (small) return;
    if (ticked("crosshair")) crosshairLayer(view);
    labelLayer(view);
  }

  function describe() {
    for (const [name, { through }] of Object.entries(PLANES)) {
      control(`slice-${name}`).value = position[through];
      document.getElementById(`position-${name}`).textContent = `${coordinateName(through, position[through], data)} mm`;
    }
    for (const output of viewer.querySelectorAll("output[data-of]")) {
      output.textContent = `${control(output.dataset.of).value} ${output.dataset.unit}`;
    }
    const texts = { position: position.map((index, axis) => coordinateName(axis, index, data)).join(", "), ...page.describe(position) };
    for (const [id, text] of Object.entries(texts)) document.getElementById(id).textContent = text;
  }

  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      canvases.forEach(draw);
      describe();
      viewer.dataset.state = "ready";
    });
  }

  function moveTo(axis, index) {
    position[axis] = Math.min(sizes[axis] - 1, Math.max(0, Math.round(index)));
    redraw();
  }

  function moveToPointer(event) {
    const canvas = event.currentTarget, plane = PLANES[canvas.dataset.plane], box = canvas.getBoundingClientRect();
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / box.width;
    const row = ((event.clientY - box.top) * unit - frame.top) / frame.scale - 0.5;
    moveTo(plane.column, ((event.clientX - box.left) * unit - frame.left) / frame.scale - 0.5);
    moveTo(plane.row, screenRow(sizes, plane, row));
  }

  function onPlaneKey(event) {
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

  /* The key of a checkbox toggles it, that of a choice goes on to its next option. */
  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === "SELECT") return;
    const found = viewer.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
    if (!found) return;
    const options = [...found.querySelectorAll("input")];
    if (options.length) options[(options.findIndex((option) => option.checked) + 1) % options.length].checked = true;
    else found.checked = !found.checked;
    redraw();
  }

  for (const canvas of canvases) {
    new ResizeObserver(redraw).observe(canvas);
    if (canvas.dataset.scan) continue;
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); moveToPointer(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) moveToPointer(event); });
    canvas.addEventListener("wheel", onWheel, { passive: false });
    canvas.addEventListener("keydown", onPlaneKey);
    const through = PLANES[canvas.dataset.plane].through, slider = control(`slice-${canvas.dataset.plane}`);
    slider.max = sizes[through] - 1;
    slider.addEventListener("input", () => moveTo(through, Number(slider.value)));
  }
  viewer.addEventListener("keydown", onKey);
  viewer.addEventListener("input", redraw);
  document.getElementById("center").addEventListener("click", () => { position.splice(0, 3, ...data.start_voxel); redraw(); });
  if (page.connect) page.connect({ redraw, moveToPoint: (point_mm) => toVoxel(point_mm, data).forEach((index, axis) => moveTo(axis, index)) });
  redraw();
}

/* The colour bar's 256 colours from left to right. */
function drawBar(ramp) {
  const canvas = document.getElementById("bar"), context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const at = 3 * Math.round((x / (canvas.width - 1)) * 255);
    context.fillStyle = `rgb(${ramp[at]}, ${ramp[at + 1]}, ${ramp[at + 2]})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

/* Read the page's data, start the viewer with what `prepare` makes of it, and say so where that fails. */
async function openViewer(prepare) {
  const notice = document.getElementById("viewer-status");
  try {
    if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") {
      throw new Error("this browser is too old; use Chrome or Edge 80, Firefox 113, Safari 16.4, or newer");
    }
    const data = JSON.parse(document.getElementById("viewer-data").textContent);
    const scans = await unpackAll(data.scans, data.sizes), outlines = await unpackAll(data.outlines, data.sizes);
    startViewer(data, await prepare(data, scans, outlines));
    notice.hidden = true;
  } catch (error) {
    viewer.dataset.state = "failed";
    notice.textContent = `The pictures cannot be shown: ${error.message}`;
  }
}

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
