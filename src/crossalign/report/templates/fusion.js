/* A fusion: the MRI, the PET or the fused volume, or the PET in colour over the MRI. */

openViewer(async (nv, data) => {
  addColours(nv, "uptake", data.colours);
  const volumes = { mri: await loadVolume("MRI", data.mri, "gray"), pet: await loadVolume("PET", data.pet, "uptake"), fused: await loadVolume("fused", data.fused, "gray") };
  Object.values(volumes).forEach((volume) => nv.addVolume(volume));
  drawColourBar(data.colours);

  /* The base is what is displayed; the PET lies over the MRI, as opaque as its uptake is high, and all else is hidden. */
  function display() {
    const name = selected("displayed"), mixed = name === "colour", base = volumes[mixed ? "mri" : name];
    const mm = nv.frac2mm(nv.scene.crosshairPos);
    nv.setModulationImage(volumes.pet.id, mixed ? volumes.pet.id : "", mixed ? 1 : 0);
    nv.setVolume(base, 0);
    for (const volume of nv.volumes) nv.setOpacity(nv.getVolumeIndexByID(volume.id), volume === base || (mixed && volume === volumes.pet) ? 1 : 0);
    nv.scene.crosshairPos = nv.mm2frac(mm);
    document.getElementById("opacity-control").hidden = !mixed;
  }

  function changed(name) {
    if (name === undefined || name === "displayed") display();
    nv.overlayAlphaShader = selected("displayed") === "colour" ? control("opacity").valueAsNumber / 100 : 0;
  }

  function values() {
    const mm = [...nv.frac2mm(nv.scene.crosshairPos)], at = (name) => valueAt(volumes[name], mm);
    const near = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : "–");
    return {
      "value-mri": near(at("mri")),
      "value-pet": `${near(at("pet"))} ${data.unit}`,
      "value-fused": near(at("fused")),
      lowest: near(control("pet-low").valueAsNumber),
      peak: `${near(control("pet-high").valueAsNumber)} ${data.unit}`,
    };
  }

  return { volumes, changed, values };
});
