/* An explanation: one map at a time over either image, with marked points. */

openViewer(async (data, scans, outlines) => {
  const unpackMap = async (map) => ({ ...map, bytes: await unpackVolume(map.title, map.values, map.sizes) });
  const maps = await Promise.all(data.maps.map(unpackMap)), ramp = await unpack(data.ramp);
  const current = () => maps[Number(control("map").value)];
  drawBar(ramp);

  function layers(scan) {
    const map = current(), under = scan || selected("under");
    return [
      imageLayer(scans[under === "fixed" ? "fixed" : map.moving]),
      mapLayer(map, ramp, control("opacity").value / 100),
      ...(ticked("outlines") && outlines.fixed ? [outlineLayer(outlines.fixed, FIXED_LINE)] : []),
      ...(ticked("marks") ? [markLayer(map.marks.filter((mark) => mark.scan === under))] : []),
    ];
  }

  function describe(position) {
    const map = current();
    return {
      displayed: `Map: ${map.title}, over the ${selected("under")} image.`,
      value: `At the crosshair ${(mapValue(map, position) / 255).toFixed(2)}`,
      peak: `1 (${map.peak})`,
      marked: map.marks.map((mark) => `${mark.shape}: ${mark.words} (${mark.scan} image)`).join(" · "),
    };
  }

  function connect({ redraw, moveToPoint }) {
    function onMap() {
      const map = current(), marked = map.marks.find((mark) => mark.scan === "fixed");
      viewer.querySelector(`[name="under"][value="${map.scan}"]`).checked = true;
      if (marked) moveToPoint(marked.point_mm);
      redraw();
    }
    control("map").addEventListener("change", onMap);
    document.getElementById("highest").addEventListener("click", () => moveToPoint(current().highest_mm));
    onMap();
  }

  return { layers, describe, connect };
});
