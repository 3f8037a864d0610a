/* A registration: the moving image, before or after, over the fixed one, each on its own grid. */

const AMBER_MAP = { R: [0, 255], G: [0, 189], B: [0, 92], A: [255, 255], I: [0, 255] };
const FLICKER_MS = 600;

openViewer(async (nv, data) => {
  nv.addColormap("amber", AMBER_MAP);
  nv.addColormap("glands", { R: [0, FIXED_COLOUR[0], MOVING_COLOUR[0], 255], G: [0, FIXED_COLOUR[1], MOVING_COLOUR[1], 255], B: [0, FIXED_COLOUR[2], MOVING_COLOUR[2], 255], A: [0, 255, 255, 255], labels: ["", "fixed", "moving", "both"] });
  nv.addColormap("pair", { R: [FIXED_COLOUR[0], MOVING_COLOUR[0]], G: [FIXED_COLOUR[1], MOVING_COLOUR[1]], B: [FIXED_COLOUR[2], MOVING_COLOUR[2]], A: [255, 255], I: [0, 255] });
  const volumes = { fixed: await loadVolume("fixed", data.fixed, "gray"), moving: await loadVolume("moving", data.moving, "amber") };
  nv.addVolume(volumes.fixed);
  nv.addVolume(volumes.moving);
  const masks = [data.fixed_mask && await loadVolume("fixed mask", { nifti: data.fixed_mask, low: 0, high: 1 }, "gray"), data.moving_mask && await loadVolume("moving mask", { nifti: data.moving_mask, low: 0, high: 1 }, "gray")];
  let flickering = null, moved = true;
  const when = () => selected("when");

  function slice() {
    if (selected("overlay") !== "board") return "";
    const base = nv.volumes[0], side = control("square").valueAsNumber;
    const counts = [1, 2, 3].map((axis) => ((base.dimsRAS[axis] * base.pixDimsRAS[axis]) / side).toFixed(5));
    return `\tvec3 square = floor(texPos * vec3(${counts.join(", ")}));\n\tif (mod(square.x + square.y + square.z, 2.0) > 0.5) ocolor.a = 0.0;`;
  }

  function outline() {
    const shown = masks.map((mask) => ticked("outlines") && mask);
    if (!masks.some(Boolean)) return;
    nv.setDrawColormap("glands");
    nv.setDrawOpacity(0.6);
    if (shown.some(Boolean)) drawMasks(nv, shown, [data.fixed_mask_affine, data.moving_mask_affines?.[when()]]);
    else { nv.createEmptyDrawing(); nv.refreshDrawing(false); }
  }

  function showLandmarks() {
    if (!data.landmarks.length) return;
    nv.meshes.slice().forEach((mesh) => nv.removeMesh(mesh));
    if (!ticked("landmarks")) return;
    const node = (name, [x, y, z], colorValue) => ({ name, x, y, z, colorValue, sizeValue: 1 });
    const nodes = data.landmarks.flatMap((one) => [node("", one.fixed, 1), node("", one[when()], 2)]);
    const edges = data.landmarks.map((_, rank) => ({ first: 2 * rank, second: 2 * rank + 1, colorValue: 1 }));
    nv.addMesh(nv.loadConnectomeAsMesh({ name: "landmarks", nodeColormap: "pair", nodeColormapNegative: "pair", nodeMinColor: 1, nodeMaxColor: 2, nodeScale: 1.2, edgeColormap: "gray", edgeColormapNegative: "gray", edgeMin: 0, edgeMax: 1, edgeScale: 0.4, showLegend: false, nodes, edges }));
  }

  function placeMoving() {
    const mm = nv.frac2mm(nv.scene.crosshairPos);
    nv.setVolumeAffine(nv.volumes.indexOf(volumes.moving), data.affines[when()]);
    nv.scene.crosshairPos = nv.mm2frac(mm);
    outline();
    showLandmarks();
  }

  function setDetail() {
    const mm = nv.frac2mm(nv.scene.crosshairPos);
    nv.closeDrawing();
    nv.setVolume(volumes[selected("detail")], 0);
    nv.scene.crosshairPos = nv.mm2frac(mm);
    outline();
    nv.setCustomSliceShader(sliceProgram(nv, slice()));
    zoomTo(nv, control("zoom").valueAsNumber);
  }

  /* How much of the overlay is seen: it is the moving image, or the fixed one where the detail is the moving image's. */
  function setAlpha() {
    let share = control("blend").valueAsNumber / 100;
    if (selected("overlay") === "board") share = 1;
    if (flickering !== null) share = moved ? 1 : 0;
    nv.overlayAlphaShader = selected("overlay") !== "board" && nv.volumes[0] === volumes.moving ? 1 - share : share;
  }

  function flicker() {
    if (ticked("flicker") === (flickering !== null)) return;
    if (flickering !== null) { clearInterval(flickering); flickering = null; return; }
    flickering = setInterval(() => { moved = !moved; setAlpha(); nv.drawScene(); }, FLICKER_MS);
  }

  function changed(name) {
    const first = name === undefined;
    if (first || name === "when") placeMoving();
    if (name === "detail") setDetail();
    if (first || name === "overlay" || name === "square") nv.setCustomSliceShader(sliceProgram(nv, slice()));
    if (name === "outlines") outline();
    if (name === "landmarks") showLandmarks();
    if (name === "tint") nv.setColormap(volumes.moving.id, ticked("tint") ? "amber" : "gray");
    flicker();
    setAlpha();
    document.getElementById("blend-control").hidden = selected("overlay") !== "blend" || ticked("flicker");
    document.getElementById("square-control").hidden = selected("overlay") !== "board";
  }

  function values() {
    const mm = [...nv.frac2mm(nv.scene.crosshairPos)];
    const position = toLps(mm), file = data.to_header && data.to_header.map((row) => row.reduce((sum, value, axis) => sum + value * position[axis], 0));
    return {
      "value-fixed": plain(valueAt(volumes.fixed, mm)), "value-moving": plain(valueAt(volumes.moving, mm)),
      ...(file && { "file-position": file.map((value, axis) => `${"xyz"[axis]} ${value.toFixed(1)}`).join(", ") }),
    };
  }

  return { volumes, changed, values };
});
