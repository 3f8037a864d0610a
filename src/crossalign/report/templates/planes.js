/* Three linked planes: pointer, keys, wheel and sliders move one position, in voxels, and ask for a new drawing. */

function linkPlanes(viewer, canvases, sizes, position, redraw) {
  let travelled = 0;

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

  for (const canvas of canvases) {
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
}

/* Make the canvas as many device pixels wide as it is shown. */
function fitCanvas(canvas) {
  const side = Math.max(1, Math.round(canvas.clientWidth * (window.devicePixelRatio || 1)));
  if (canvas.width !== side) canvas.width = canvas.height = side;
}

/* Read the page's data, start the viewer with what `start` makes of it, and say so where that fails. */
async function openPlanes(viewer, notice, start) {
  try {
    if (typeof DecompressionStream === "undefined" || typeof OffscreenCanvas === "undefined") {
      throw new Error("this browser is too old; use Chrome or Edge 80, Firefox 113, Safari 16.4, or newer");
    }
    const data = JSON.parse(document.getElementById("viewer-data").textContent);
    await start(data, data.sizes.reduce((product, size) => product * size, 1));
    notice.hidden = true;
  } catch (error) {
    viewer.dataset.state = "failed";
    notice.textContent = `The pictures cannot be shown: ${error.message}`;
  }
}

window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
