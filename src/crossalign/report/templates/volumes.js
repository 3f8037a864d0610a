/* Volumes as bytes, x fastest, and the slices, outlines and names of directions taken from them. */

/* Columns and rows of each plane are axes of the patient: 0 left, 1 back, 2 head. The head end is drawn on top. */
const PLANES = {
  axial: { column: 0, row: 1, through: 2, flip: false, ends: { left: "R", right: "L", top: "A", bottom: "P" } },
  sagittal: { column: 1, row: 2, through: 0, flip: true, ends: { left: "A", right: "P", top: "S", bottom: "I" } },
  coronal: { column: 0, row: 2, through: 1, flip: true, ends: { left: "R", right: "L", top: "S", bottom: "I" } },
};
const AXIS_LETTERS = [["L", "R"], ["P", "A"], ["S", "I"]];

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpackVolume(name, text, sizes) {
  const bytes = await unpack(text);
  if (bytes.length !== sizes.reduce((product, size) => product * size, 1)) throw new Error(`the volume "${name}" is damaged`);
  return bytes;
}

async function unpackAll(texts, sizes) {
  const volumes = {};
  for (const [name, text] of Object.entries(texts)) volumes[name] = await unpackVolume(name, text, sizes);
  return volumes;
}

/* One slice, its rows from the top of the screen to the bottom. */
function takeSlice(volume, sizes, plane, index) {
  const strides = [1, sizes[0], sizes[0] * sizes[1]];
  const width = sizes[plane.column], height = sizes[plane.row];
  const values = new Uint8Array(width * height);
  for (let j = 0; j < height; j++) {
    let at = index * strides[plane.through] + screenRow(sizes, plane, j) * strides[plane.row];
    for (let i = 0; i < width; i++, at += strides[plane.column]) values[j * width + i] = volume[at];
  }
  return { values, width, height };
}

/* The row on the screen of a voxel's row, and the other way round. */
const screenRow = (sizes, plane, row) => (plane.flip ? sizes[plane.row] - 1 - row : row);

/* Marching squares: segments [x0, y0, x1, y1], in slice voxels, along which the slice passes the level. */
function outlineOf(slice, level) {
  const { values, width, height } = slice, segments = [];
  const crossing = (a, b) => (level - a) / (b - a);
  for (let y = 0; y + 1 < height; y++) {
    for (let x = 0; x + 1 < width; x++) {
      const at = y * width + x;
      const a = values[at], b = values[at + 1], c = values[at + width + 1], d = values[at + width];
      const points = [];
      if (a > level !== b > level) points.push([x + crossing(a, b), y]);
      if (b > level !== c > level) points.push([x + 1, y + crossing(b, c)]);
      if (d > level !== c > level) points.push([x + crossing(d, c), y + 1]);
      if (a > level !== d > level) points.push([x, y + crossing(a, d)]);
      for (let k = 0; k + 1 < points.length; k += 2) segments.push([...points[k], ...points[k + 1]]);
    }
  }
  return segments;
}

/* "L 12.0": a coordinate in mm, with the letter of its side. */
function coordinateName(axis, index, data) {
  const value = data.origin_mm[axis] + index * data.spacing_mm;
  return `${AXIS_LETTERS[axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`;
}
