/* The viewer of a fusion: one crosshair, three planes, four ways to look. */

const viewer = document.getElementById("viewer");
const notice = document.getElementById("viewer-status");
const planeCanvases = [...viewer.querySelectorAll("canvas.plane")];
const smallCanvases = [...viewer.querySelectorAll("canvas.small")];
const chosen = (name) => viewer.querySelector(`[name="${name}"]:checked`);

/* Every slice through a table of colours: [MRI level][PET level][red, green, blue], or [level][...] for one scan. */
function colourPicture(slice, colourAt) {
  const picture = new OffscreenCanvas(slice.width, slice.height), context = picture.getContext("2d");
  const image = context.createImageData(slice.width, slice.height);
  for (let i = 0; i < slice.values.length; i++) {
    const [red, green, blue] = colourAt(i);
    image.data.set([red, green, blue, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  return picture;
}

function startViewer(data, scans, table, ramp) {
  const sizes = data.sizes, position = [...data.start_voxel];
  let waiting = false;
  const level = (byte) => Math.round((byte / 255) * (data.levels - 1));
  const pick = (colours, at) => [colours[3 * at], colours[3 * at + 1], colours[3 * at + 2]];
  const sliceOf = (name, plane) => takeSlice(scans[name], sizes, plane, position[plane.through]);

  function pictureOf(name, plane) {
    if (name === "colour") {
      const mri = sliceOf("mri", plane), pet = sliceOf("pet", plane);
      return colourPicture(mri, (i) => pick(table, level(mri.values[i]) * data.levels + level(pet.values[i])));
    }
    const slice = sliceOf(name, plane);
    return colourPicture(slice, name === "pet" ? (i) => pick(ramp, slice.values[i]) : (i) => Array(3).fill(slice.values[i]));
  }

  function drawPlane(canvas) {
    const context = canvas.getContext("2d"), plane = PLANES[canvas.dataset.plane];
    const frame = frameOf(canvas, sizes, plane), unit = canvas.width / canvas.clientWidth;
    context.clearRect(0, 0, canvas.width, canvas.height);
    drawPicture(context, frame, pictureOf(canvas.dataset.scan || chosen("shown").value, plane));
    if (canvas.dataset.scan) return;
    const row = plane.flip ? sizes[plane.row] - 1 - position[plane.row] : position[plane.row];
    if (chosen("crosshair")) drawCrosshair(context, frame, position[plane.column], row, 9 * unit);
    drawLabels(context, canvas, plane, 14 * unit, frame.scale / data.spacing_mm);
    viewer.querySelector(`[name="slice-${canvas.dataset.plane}"]`).value = position[plane.through];
    const place = `${placeName(plane.through, position[plane.through], data)} mm`;
    document.getElementById(`place-${canvas.dataset.plane}`).textContent = place;
  }

  function sayValues() {
    const at = position[0] + sizes[0] * (position[1] + sizes[1] * position[2]);
    const pet = data.pet_low + (scans.pet[at] / 255) * (data.pet_high - data.pet_low);
    document.getElementById("values").textContent = `At the crosshair: PET about ${Number(pet.toPrecision(3))} ${data.unit}`;
    document.getElementById("place").textContent = position.map((index, axis) => placeName(axis, index, data)).join(", ");
  }

  function drawAll() {
    waiting = false;
    for (const canvas of [...planeCanvases, ...smallCanvases]) {
      fitCanvas(canvas);
      drawPlane(canvas);
    }
    sayValues();
    viewer.dataset.state = "ready";
  }

  function redraw() {
    if (!waiting) { waiting = true; requestAnimationFrame(drawAll); }
  }

  linkPlanes(viewer, planeCanvases, sizes, position, redraw);
  viewer.addEventListener("input", redraw);
  document.getElementById("home").addEventListener("click", () => { position.splice(0, 3, ...data.start_voxel); redraw(); });
  const observer = new ResizeObserver(redraw);
  [...planeCanvases, ...smallCanvases].forEach((canvas) => observer.observe(canvas));
  drawBar(ramp);
  redraw();
}

function drawBar(ramp) {
  const canvas = document.getElementById("bar"), context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const at = Math.round((x / (canvas.width - 1)) * 255);
    context.fillStyle = `rgb(${ramp[3 * at]}, ${ramp[3 * at + 1]}, ${ramp[3 * at + 2]})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

openPlanes(viewer, notice, async (data, voxels) => {
  startViewer(data, await unpackAll(data.scans, voxels), await unpack(data.table), await unpack(data.ramp));
});
