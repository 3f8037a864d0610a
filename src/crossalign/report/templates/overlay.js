/* A PET over an MR: the PET in colour, as opaque as its uptake is high. */

openViewer(async (nv, data) => {
  const [red, green, blue] = [0, 1, 2].map((part) => data.colours.map((colour) => colour[part]));
  nv.addColormap("uptake", { R: red, G: green, B: blue, A: red.map(() => 255), I: red.map((_, index) => index) });
  const volumes = { fixed: await loadVolume("MR", data.fixed, "gray"), pet: await loadVolume("PET", data.pet, "uptake") };
  nv.addVolume(volumes.fixed);
  nv.addVolume(volumes.pet);
  nv.setModulationImage(volumes.pet.id, volumes.pet.id, 1); // the opacity begins as the uptake, 0 to 1 in its window

  function slice() {
    const onset = control("onset").valueAsNumber / 100, full = Math.max(control("full").valueAsNumber / 100, onset + 0.005);
    return `\tocolor.a = clamp((ocolor.a - ${onset.toFixed(4)}) / ${(full - onset).toFixed(4)}, 0.0, 1.0);`;
  }

  function drawBar() {
    const canvas = document.getElementById("bar"), context = canvas.getContext("2d"), opacity = control("opacity").valueAsNumber / 100;
    const onset = control("onset").valueAsNumber / 100, full = Math.max(control("full").valueAsNumber / 100, onset + 0.005);
    context.clearRect(0, 0, canvas.width, canvas.height);
    for (let x = 0; x < canvas.width; x++) {
      const level = x / (canvas.width - 1), alpha = opacity * Math.min(1, Math.max(0, (level - onset) / (full - onset)));
      const grey = 110, [r, g, b] = data.colours[Math.round(level * 255)].map((part) => (1 - alpha) * grey + alpha * part);
      context.fillStyle = `rgb(${r}, ${g}, ${b})`;
      context.fillRect(x, 0, 1, canvas.height);
    }
  }

  function changed(name) {
    if (name === undefined || name === "onset" || name === "full") nv.setCustomSliceShader(sliceProgram(nv, slice()));
    nv.overlayAlphaShader = control("opacity").valueAsNumber / 100;
    drawBar();
  }

  function values() {
    const mm = [...nv.frac2mm(nv.scene.crosshairPos)];
    return {
      "value-fixed": plain(valueAt(volumes.fixed, mm)),
      "value-pet": `${plain(valueAt(volumes.pet, mm))} ${data.unit}`,
      lowest: `${plain(control("pet-low").valueAsNumber)}`,
      peak: `${plain(control("pet-high").valueAsNumber)} ${data.unit}`,
    };
  }

  return { volumes, changed, values };
});
