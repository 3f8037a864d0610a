/* A PET over an MR: the PET in colour, as opaque as its uptake is high. */

openViewer(async (nv, data) => {
  addColours(nv, "uptake", data.colours);
  const volumes = { fixed: await loadVolume("MR", data.fixed, "gray"), pet: await loadVolume("PET", data.pet, "uptake") };
  nv.addVolume(volumes.fixed);
  nv.addVolume(volumes.pet);
  nv.setModulationImage(volumes.pet.id, volumes.pet.id, 1); // the opacity begins as the uptake, 0 to 1 in its window

  /* Where in the PET's window it is seen first, and where fully. */
  function range() {
    const onset = control("onset").valueAsNumber / 100;
    return [onset, Math.max(control("full").valueAsNumber / 100, onset + 0.005)];
  }

  function slice() {
    const [onset, full] = range();
    return `\tocolor.a = clamp((ocolor.a - ${onset.toFixed(4)}) / ${(full - onset).toFixed(4)}, 0.0, 1.0);`;
  }

  function drawBar() {
    const [onset, full] = range(), opacity = control("opacity").valueAsNumber / 100;
    drawColourBar(data.colours, (level) => opacity * Math.min(1, Math.max(0, (level - onset) / (full - onset))));
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
