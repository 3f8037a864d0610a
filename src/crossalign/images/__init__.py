"""Images and label maps in physical space, their files, intensities, masks and surfaces."""

from crossalign.images.files.formats.header import (
    Header,
)
from crossalign.images.files.formats.placement import (
    Placement,
    placed,
    straightened,
)
from crossalign.images.files.formats.recognition import (
    SUFFIXES,
    read_header,
)
from crossalign.images.files.formats.voxels import (
    read_float32,
    read_labels,
)
from crossalign.images.files.images import (
    check_image_output,
    read_grid,
    read_image,
    read_label_map,
    read_volume,
    write_image,
    write_label_map,
)
from crossalign.images.files.points import (
    PointsFile,
    is_points_file,
    read_points,
    write_points,
)
from crossalign.images.files.transforms import (
    check_transform_output,
    read_transform,
    write_transform,
)
from crossalign.images.image import (
    Image,
    LabelMap,
    marked_voxels,
)
from crossalign.images.intensity import (
    empty_value,
    foreground,
    looks_like_labels,
    padding_value,
    scale_intensity,
)
from crossalign.images.masks import (
    has_several_labels,
    on_grid_of,
    one_structure,
    read_mask,
)
from crossalign.images.preprocessing import (
    to_working_spacing,
)
from crossalign.images.surface import (
    SURFACE_POINTS,
    surface_points,
)

__all__ = [
    "Header",
    "Image",
    "LabelMap",
    "Placement",
    "PointsFile",
    "SUFFIXES",
    "SURFACE_POINTS",
    "check_image_output",
    "check_transform_output",
    "empty_value",
    "foreground",
    "has_several_labels",
    "is_points_file",
    "looks_like_labels",
    "on_grid_of",
    "one_structure",
    "padding_value",
    "placed",
    "marked_voxels",
    "read_float32",
    "read_grid",
    "read_header",
    "read_image",
    "read_label_map",
    "read_labels",
    "read_mask",
    "read_points",
    "read_transform",
    "read_volume",
    "scale_intensity",
    "straightened",
    "surface_points",
    "to_working_spacing",
    "write_image",
    "write_label_map",
    "write_points",
    "write_transform",
]
