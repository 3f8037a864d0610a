/* A fusion: MRI and fused volume in grey, PET in colour, or MRI and PET in one colour picture. */

openViewer(async (data, scans) => {
  const table = await unpack(data.table), ramp = await unpack(data.ramp), sizes = data.sizes;
  drawBar(ramp);

  function layers(scan) {
    const name = scan || selected("displayed");
    if (name === "colour") return [tableLayer(scans.mri, scans.pet, table, data.levels)];
    return [rampLayer(scans[name], name === "pet" ? ramp : GREYS)];
  }

  function describe([x, y, z]) {
    const byte = scans.pet[x + sizes[0] * (y + sizes[1] * z)];
    const pet = data.pet_low + (byte / 255) * (data.pet_high - data.pet_low);
    return {
      displayed: `Displayed: ${selected("displayed")}.`,
      value: `At the crosshair: PET about ${Number(pet.toPrecision(3))} ${data.unit}`,
    };
  }

  return { layers, describe };
});
