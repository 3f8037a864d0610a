"""A program of its own: reads an ITK transform from HDF5 and writes, as JSON, where it takes the points asked for.

A damaged HDF5 file can crash ITK or keep it busy for ever; then only this process ends. It takes the file's path and
the points (JSON); it imports nothing of crossalign, so that it starts quickly.
"""

import json
import resource
import sys

MEMORY_BYTES = 4 * 1024**3
CPU_SECONDS = 30


def main(path: str, points: str) -> None:
    """Write the transform's type, dimension, whether it is linear, and its image of each point."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import SimpleITK as sitk

    transform = sitk.ReadTransform(path)
    dimension = transform.GetDimension()
    found = {
        "type": transform.GetName(),
        "dimension": dimension,
        "linear": transform.IsLinear(),
        "points": [transform.TransformPoint(point) for point in json.loads(points)] if dimension == 3 else [],
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
