/* Painting slices on a canvas: every plane is drawn to one scale, in mm, centred in a square. */

const GREY = [1, 1, 1], AMBER = [1, 0.74, 0.36];
const FIXED_LINE = "#3fe0f0", MOVING_LINE = "#ff6ad5";
const LABEL = "#f4f1e6", SHADOW = "rgba(0, 0, 0, 0.75)";

/* Screen geometry of one plane: pixels for each voxel, and where voxel (0, 0) begins. */
function frameOf(canvas, sizes, plane) {
  const scale = canvas.width / Math.max(...sizes);
  const width = sizes[plane.column] * scale, height = sizes[plane.row] * scale;
  return { scale, width, height, left: (canvas.width - width) / 2, top: (canvas.height - height) / 2 };
}

/* A grey part and a tinted part, added: both are functions from voxel to 0..254. */
function toPicture(slice, tint, greyAt, tintedAt) {
  const picture = new OffscreenCanvas(slice.width, slice.height), context = picture.getContext("2d");
  const image = context.createImageData(slice.width, slice.height), pixels = image.data;
  for (let i = 0; i < slice.values.length; i++) {
    const grey = greyAt(i), tinted = tintedAt(i);
    for (let part = 0; part < 3; part++) pixels[4 * i + part] = grey + tint[part] * tinted;
    pixels[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return picture;
}

/* Bytes are 1 to 255 inside the scan and 0 beyond its border. */
function scanPicture(slice, tint) {
  return toPicture(slice, tint, () => 0, (i) => Math.max(0, slice.values[i] - 1));
}

/* Beyond the moving scan's border the fixed one stays as it is until the last half of the slider. */
function blendPicture(fixed, moving, share, tint) {
  const alone = Math.min(1, 2 * (1 - share));
  const greyAt = (i) => (moving.values[i] ? 1 - share : alone) * Math.max(0, fixed.values[i] - 1);
  return toPicture(fixed, tint, greyAt, (i) => share * Math.max(0, moving.values[i] - 1));
}

function drawPicture(context, frame, picture) {
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, frame.left, frame.top, frame.width, frame.height);
}

/* Every second square of a board about the middle of the canvas, squares of `side` pixels. */
function clipToBoard(context, canvas, side) {
  const reach = Math.ceil(canvas.width / 2 / side);
  context.beginPath();
  for (let j = -reach; j < reach; j++) {
    for (let i = -reach; i < reach; i++) {
      if ((i + j) % 2 === 0) context.rect(canvas.width / 2 + i * side, canvas.height / 2 + j * side, side, side);
    }
  }
  context.clip();
}

function drawOutline(context, frame, slice, colour, thickness) {
  context.save();
  context.beginPath();
  for (const [x0, y0, x1, y1] of outlineOf(slice, 127.5)) {
    context.moveTo(frame.left + (x0 + 0.5) * frame.scale, frame.top + (y0 + 0.5) * frame.scale);
    context.lineTo(frame.left + (x1 + 0.5) * frame.scale, frame.top + (y1 + 0.5) * frame.scale);
  }
  context.lineCap = "round";
  context.strokeStyle = SHADOW;
  context.lineWidth = thickness * 2;
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = thickness;
  context.stroke();
  context.restore();
}

function drawCrosshair(context, frame, column, row, gap) {
  const x = frame.left + (column + 0.5) * frame.scale, y = frame.top + (row + 0.5) * frame.scale;
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

function drawLabels(context, canvas, plane, size, pixelsPerMm) {
  const middle = canvas.width / 2, far = canvas.width - size, bar = 20 * pixelsPerMm;
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
