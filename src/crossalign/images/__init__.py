"""Images and label maps in physical space, their files, and their intensities."""

from crossalign.images.files import (
    check_image_output,
    read_grid,
    read_image,
    read_label_map,
    read_volume,
    write_image,
    write_label_map,
)
from crossalign.images.image import Image, LabelMap
from crossalign.images.intensity import empty_value, foreground, padding_value, scale_intensity
from crossalign.images.label_like import looks_like_labels
from crossalign.images.masks import has_several_labels, on_grid_of, one_structure, read_mask
from crossalign.images.points_files import PointsFile, is_points_file, read_points, write_points
from crossalign.images.slabs import places_of
from crossalign.images.transform_files import check_transform_output, read_transform, write_transform
from crossalign.images.working import to_working_spacing
from crossalign.output import check_output, whole_file, whole_files

__all__ = [
    "Image",
    "LabelMap",
    "PointsFile",
    "check_image_output",
    "check_output",
    "check_transform_output",
    "empty_value",
    "foreground",
    "has_several_labels",
    "is_points_file",
    "looks_like_labels",
    "on_grid_of",
    "one_structure",
    "padding_value",
    "places_of",
    "read_grid",
    "read_image",
    "read_label_map",
    "read_mask",
    "read_points",
    "read_transform",
    "read_volume",
    "scale_intensity",
    "to_working_spacing",
    "whole_file",
    "whole_files",
    "write_image",
    "write_label_map",
    "write_points",
    "write_transform",
]
