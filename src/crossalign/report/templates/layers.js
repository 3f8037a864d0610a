/* Layers of a canvas: each is a function of a view (canvas, context, plane, frame, position, data) that draws on it.

   Every plane is drawn to one scale, in mm, centred in a square. */

const GREYS = Uint8Array.from({ length: 768 }, (_, at) => Math.floor(at / 3));
const INSIDE = GREYS.map((value) => Math.max(0, value - 1));
const FIXED_LINE = "#3fe0f0";
const LABEL = "#f4f1e6", SHADOW = "rgba(0, 0, 0, 0.75)";
const MARK_COLOURS = { ring: "#7dff8a", cross: "#ff6ad5", square: "#6fd0ff" };
const MARK_DISTANCE_MM = 4; // a point is drawn on the slices within this distance

/* Screen geometry of one plane: pixels for each voxel, and where voxel (0, 0) begins. */
function frameOf(canvas, sizes, plane) {
  const scale = canvas.width / Math.max(...sizes);
  const width = sizes[plane.column] * scale, height = sizes[plane.row] * scale;
  return { scale, width, height, left: (canvas.width - width) / 2, top: (canvas.height - height) / 2 };
}

const sliceOf = (view, volume) => takeSlice(volume, view.data.sizes, view.plane, view.position[view.plane.through]);

/* Draw a picture of the slice's size; `colour(pixels, at, i, j)` writes red, green, blue and alpha of column i, row j. */
function drawPicture(view, colour) {
  const { context, frame, plane, data } = view, width = data.sizes[plane.column], height = data.sizes[plane.row];
  const picture = new OffscreenCanvas(width, height), inner = picture.getContext("2d");
  const image = inner.createImageData(width, height);
  for (let j = 0, at = 0; j < height; j++) for (let i = 0; i < width; i++, at += 4) colour(image.data, at, i, j);
  inner.putImageData(image, 0, 0);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, frame.left, frame.top, frame.width, frame.height);
}

/* Red, green and blue from a list of colours. */
function setColour(pixels, at, colours, index, alpha) {
  for (let part = 0; part < 3; part++) pixels[at + part] = colours[3 * index + part];
  pixels[at + 3] = alpha;
}

/* An image: bytes are 1 to 255 inside, and 0 beyond its border. */
const imageLayer = (volume) => (view) => {
  const { values } = sliceOf(view, volume);
  drawPicture(view, (pixels, at) => setColour(pixels, at, INSIDE, values[at / 4], 255));
};

/* A map on a grid of its own in colour; the higher its value, the less is seen of what lies under it. */
const mapLayer = (map, ramp, strength) => (view) => {
  const { plane, position, data } = view, voxel = [...position];
  drawPicture(view, (pixels, at, i, j) => {
    voxel[plane.column] = i;
    voxel[plane.row] = screenRow(data.sizes, plane, j);
    const value = mapValue(map, voxel);
    setColour(pixels, at, ramp, Math.round(value), value * strength);
  });
};

/* The map's value, 0 to 255, at a display voxel, trilinear; 0 outside. No allocation: it runs for each pixel. */
function mapValue(map, [x, y, z]) {
  const [width, height, depth] = map.sizes, [ofX, ofY, ofZ] = map.from_display, bytes = map.bytes;
  const u = ofX[0] * x + ofX[1] * y + ofX[2] * z + ofX[3], v = ofY[0] * x + ofY[1] * y + ofY[2] * z + ofY[3];
  const w = ofZ[0] * x + ofZ[1] * y + ofZ[2] * z + ofZ[3];
  if (u < -0.5 || v < -0.5 || w < -0.5 || u >= width - 0.5 || v >= height - 0.5 || w >= depth - 0.5) return 0;
  const i = clamp(u, width - 1), j = clamp(v, height - 1), k = clamp(w, depth - 1);
  const left = Math.floor(i), top = Math.floor(j), low = Math.floor(k), right = i - left, down = j - top, up = k - low;
  const row = (level, line) => {
    const at = (Math.min(level, depth - 1) * height + Math.min(line, height - 1)) * width;
    return mix(bytes[at + left], bytes[at + Math.min(left + 1, width - 1)], right);
  };
  return mix(mix(row(low, top), row(low, top + 1), down), mix(row(low + 1, top), row(low + 1, top + 1), down), up);
}

const clamp = (value, last) => Math.min(last, Math.max(0, value));
const mix = (a, b, weight) => a + (b - a) * weight;

/* Stroke what `trace` adds to the path, over a wider dark line. */
function strokeTwice(context, colour, thickness, trace) {
  context.beginPath();
  trace();
  context.lineCap = "round";
  for (const [style, width] of [[SHADOW, 2 * thickness], [colour, thickness]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.stroke();
  }
}

/* The surface of a structure, whose volume holds fractions of 0 to 255. */
const outlineLayer = (volume, colour) => (view) => {
  const { context, frame } = view;
  strokeTwice(context, colour, (view.small ? 1.1 : 1.6) * view.unit, () => {
    for (const [x0, y0, x1, y1] of outlineOf(sliceOf(view, volume), 127.5)) {
      context.moveTo(...toScreen(frame, x0, y0));
      context.lineTo(...toScreen(frame, x1, y1));
    }
  });
};

const toScreen = (frame, column, row) => [frame.left + (column + 0.5) * frame.scale, frame.top + (row + 0.5) * frame.scale];

/* Points {point_mm, shape}: ring, square or cross. */
const markLayer = (marks) => (view) => {
  const { context, frame, plane, position, data } = view, size = (view.small ? 4 : 7) * view.unit;
  for (const { point_mm, shape } of marks) {
    const voxel = toVoxel(point_mm, data);
    if (Math.abs(voxel[plane.through] - position[plane.through]) * data.spacing_mm > MARK_DISTANCE_MM) continue;
    const [x, y] = toScreen(frame, voxel[plane.column], screenRow(data.sizes, plane, voxel[plane.row]));
    strokeTwice(context, MARK_COLOURS[shape], size / 3.2, () => {
      if (shape === "ring") context.arc(x, y, size, 0, 2 * Math.PI);
      if (shape === "square") context.rect(x - size, y - size, 2 * size, 2 * size);
      if (shape !== "cross") return;
      for (const way of [1, -1]) { context.moveTo(x - size, y - way * size); context.lineTo(x + size, y + way * size); }
    });
  }
};

const toVoxel = (point_mm, data) => point_mm.map((mm, axis) => (mm - data.origin_mm[axis]) / data.spacing_mm);

function crosshairLayer(view) {
  const { context, frame, plane, position, data } = view, gap = 9 * view.unit;
  const [x, y] = toScreen(frame, position[plane.column], screenRow(data.sizes, plane, position[plane.row]));
  context.beginPath();
  for (const [x0, y0, x1, y1] of [
    [frame.left, y, x - gap, y], [x + gap, y, frame.left + frame.width, y],
    [x, frame.top, x, y - gap], [x, y + gap, x, frame.top + frame.height],
  ]) { context.moveTo(x0, y0); context.lineTo(x1, y1); }
  context.strokeStyle = "rgba(255, 255, 255, 0.55)";
  context.lineWidth = Math.max(1, gap / 10);
  context.stroke();
}

function drawText(context, text, x, y, size, align) {
  context.font = `600 ${size}px system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = size / 4;
  context.strokeStyle = SHADOW;
  context.strokeText(text, x, y);
  context.fillStyle = LABEL;
  context.fillText(text, x, y);
}

/* The directions at the four sides, and a scale bar of 20 mm. */
function labelLayer(view) {
  const { canvas, context, plane } = view, size = 14 * view.unit;
  const middle = canvas.width / 2, far = canvas.width - size, bar = 20 * view.pixelsPerMm;
  drawText(context, plane.ends.left, size, middle, size, "center");
  drawText(context, plane.ends.right, far, middle, size, "center");
  drawText(context, plane.ends.top, middle, size, size, "center");
  drawText(context, plane.ends.bottom, middle, far, size, "center");
  context.fillStyle = SHADOW;
  context.fillRect(size - 1, far - 1, bar + 2, size / 5 + 2);
  context.fillStyle = LABEL;
  context.fillRect(size, far, bar, size / 5);
  drawText(context, "20 mm", size, far - size * 0.7, size * 0.8, "left");
}
