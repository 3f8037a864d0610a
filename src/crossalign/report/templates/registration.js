/* A registration: the fixed image with the moving one, before or after, blended or in a checkerboard. */

openViewer((data, scans, outlines) => {
  const tint = () => (ticked("tint") ? AMBER : GREY);
  const lines = (names) => names.filter((name) => ticked("outlines") && outlines[name])
    .map((name) => outlineLayer(outlines[name], name === "fixed" ? FIXED_LINE : MOVING_LINE));

  function overlay(moving) {
    if (selected("overlay") === "blend") return [blendLayer(scans.fixed, moving, control("blend").value / 100, tint())];
    return [imageLayer(scans.fixed), boardLayer(imageLayer(moving, tint()), Number(control("square").value))];
  }

  function layers(scan) {
    if (scan === "fixed") return [imageLayer(scans.fixed), ...lines(["fixed"])];
    if (scan) return [imageLayer(scans[scan], tint()), ...lines(["fixed", scan])];
    return [...overlay(scans[selected("when")]), ...lines(["fixed", selected("when")])];
  }

  function describe() {
    const blend = selected("overlay") === "blend";
    document.getElementById("blend-control").hidden = !blend;
    document.getElementById("square-control").hidden = blend;
    const how = blend ? `${control("blend").value} % of the blend` : "every second square";
    return { displayed: `The moving image ${selected("when")} the registration: ${how}.` };
  }

  return { layers, describe };
});
