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
  let waiting = false;

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

  function drawAll() {
    waiting = false;
    [...planeCanvases, ...smallCanvases].forEach(fitCanvas);
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

  linkPlanes(viewer, planeCanvases, sizes, position, redraw);
  viewer.addEventListener("keydown", onKey);
  viewer.addEventListener("input", redraw);
  document.getElementById("home").addEventListener("click", () => { position.splice(0, 3, ...data.start_voxel); redraw(); });
  const observer = new ResizeObserver(redraw);
  [...planeCanvases, ...smallCanvases].forEach((canvas) => observer.observe(canvas));
  redraw();
}

openPlanes(viewer, notice, async (data, voxels) => {
  startViewer(data, await unpackAll(data.scans, voxels), await unpackAll(data.outlines, voxels));
});
