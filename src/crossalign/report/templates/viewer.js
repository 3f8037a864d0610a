/* The viewer: one state, three linked planes, and the controls that change it. */

const viewer = document.getElementById("viewer");
const notice = document.getElementById("viewer-status");
const planeCanvases = [...viewer.querySelectorAll("canvas.plane")];
const smallCanvases = [...viewer.querySelectorAll("canvas.small")];
const control = (name) => viewer.querySelector(`[name="${name}"]`);
const chosen = (name) => viewer.querySelector(`[name="${name}"]:checked`).value;
const ticked = (name) => Boolean(control(name) && control(name).checked);

function startViewer(data, scans, outlines) {
  const sizes = data.sizes, position = [...data.start_voxel];
  let waiting = false, travelled = 0;

  const sliceOf = (volume, plane) => takeSlice(volume, sizes, plane, position[plane.through]);
  const onScreenRow = (plane) => (plane.flip ? sizes[plane.row] - 1 - position[plane.row] : position[plane.row]);

  function drawOutlines(context, frame, plane, names, thickness) {
    if (!ticked("outlines")) return;
    for (const name of names) {
      if (!outlines[name]) continue;
      const colour = name === "fixed" ? FIXED_LINE : MOVING_LINE;
      drawOutline(context, frame, sliceOf(outlines[name], plane), colour, thickness);
    }
  }

  function drawScans(context, canvas, frame, plane, when) {
    const fixed = sliceOf(scans.fixed, plane), moving = sliceOf(scans[when], plane);
    const tint = ticked("tint") ? AMBER : GREY;
    if (chosen("mode") === "blend") {
      drawPicture(context, frame, blendPicture(fixed, moving, control("blend").value / 100, tint));
      return;
    }
    drawPicture(context, frame, scanPicture(fixed, GREY));
    context.save();
    clipToBoard(context, canvas, (control("square").value / data.spacing_mm) * frame.scale);
    drawPicture(context, frame, scanPicture(moving, tint));
    context.restore();
  }

  function drawPlane(canvas) {
    const context = canvas.getContext("2d"), plane = PLANES[canvas.dataset.plane], when = chosen("when");
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / canvas.clientWidth;
    context.clearRect(0, 0, canvas.width, canvas.height);
    drawScans(context, canvas, frame, plane, when);
    drawOutlines(context, frame, plane, ["fixed", when], 1.6 * unit);
    if (ticked("crosshair")) drawCrosshair(context, frame, position[plane.column], onScreenRow(plane), 9 * unit);
    drawLabels(context, canvas, plane, 14 * unit, frame.scale / data.spacing_mm);
    const index = position[plane.through];
    viewer.querySelector(`[name="slice-${canvas.dataset.plane}"]`).value = index;
    const place = `${placeName(plane.through, index, data)} mm`;
    document.getElementById(`place-${canvas.dataset.plane}`).textContent = place;
  }

  function drawSmall(canvas) {
    const context = canvas.getContext("2d"), plane = PLANES[canvas.dataset.plane], scan = canvas.dataset.scan;
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / canvas.clientWidth;
    const tint = scan !== "fixed" && ticked("tint") ? AMBER : GREY;
    context.clearRect(0, 0, canvas.width, canvas.height);
    drawPicture(context, frame, scanPicture(sliceOf(scans[scan], plane), tint));
    drawOutlines(context, frame, plane, scan === "fixed" ? ["fixed"] : ["fixed", scan], 1.1 * unit);
  }

  function fit(canvas) {
    const side = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
    if (canvas.width !== side) canvas.width = canvas.height = side;
  }

  function drawAll() {
    waiting = false;
    [...planeCanvases, ...smallCanvases].forEach(fit);
    planeCanvases.forEach(drawPlane);
    smallCanvases.forEach(drawSmall);
    document.getElementById("place").textContent = position.map((index, axis) => placeName(axis, index, data)).join(", ");
    document.getElementById("blend-value").textContent = `${control("blend").value} %`;
    document.getElementById("square-value").textContent = `${control("square").value} mm`;
    document.getElementById("blend-control").hidden = chosen("mode") !== "blend";
    document.getElementById("square-control").hidden = chosen("mode") === "blend";
    const way = chosen("mode") === "blend" ? `${control("blend").value} % of the blend` : "every second square";
    document.getElementById("shown").textContent = `The moving image ${chosen("when")} the registration: ${way}.`;
    viewer.dataset.state = "ready";
  }

  function redraw() {
    if (!waiting) { waiting = true; requestAnimationFrame(drawAll); }
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
    moveTo(plane.row, plane.flip ? sizes[plane.row] - 1 - row : row);
  }

  function onPlaneKey(event) {
    const plane = PLANES[event.currentTarget.dataset.plane], down = plane.flip ? -1 : 1;
    const moves = {
      ArrowLeft: [plane.column, -1], ArrowRight: [plane.column, 1],
      ArrowUp: [plane.row, -down], ArrowDown: [plane.row, down],
      PageUp: [plane.through, 1], PageDown: [plane.through, -1],
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

  function onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const other = (name, a, b) => { viewer.querySelector(`[name="${name}"][value="${chosen(name) === a ? b : a}"]`).checked = true; };
    const flip = (name) => { if (control(name)) control(name).checked = !control(name).checked; };
    const actions = {
      b: () => other("when", "before", "after"), c: () => other("mode", "blend", "board"),
      o: () => flip("outlines"), x: () => flip("crosshair"), t: () => flip("tint"),
    };
    const action = actions[event.key.toLowerCase()];
    if (action) { action(); redraw(); }
  }

  for (const canvas of planeCanvases) {
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      moveToPointer(event);
    });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) moveToPointer(event); });
    canvas.addEventListener("wheel", onWheel, { passive: false });
    canvas.addEventListener("keydown", onPlaneKey);
    const through = PLANES[canvas.dataset.plane].through, slider = viewer.querySelector(`[name="slice-${canvas.dataset.plane}"]`);
    slider.max = sizes[through] - 1;
    slider.addEventListener("input", () => moveTo(through, Number(slider.value)));
  }
  viewer.addEventListener("keydown", onKey);
  viewer.addEventListener("input", redraw);
  document.getElementById("home").addEventListener("click", () => { position.splice(0, 3, ...data.start_voxel); redraw(); });
  const observer = new ResizeObserver(redraw);
  [...planeCanvases, ...smallCanvases].forEach((canvas) => observer.observe(canvas));
  redraw();
}

async function openViewer() {
  if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") {
    throw new Error("this browser is too old; use Chrome or Edge 80, Firefox 113, Safari 16.4, or newer");
  }
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const voxels = data.sizes.reduce((product, size) => product * size, 1);
  startViewer(data, await unpackAll(data.scans, voxels), await unpackAll(data.outlines, voxels));
  notice.hidden = true;
}

openViewer().catch((error) => {
  viewer.dataset.state = "failed";
  notice.textContent = `The pictures cannot be shown: ${error.message}`;
});
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
