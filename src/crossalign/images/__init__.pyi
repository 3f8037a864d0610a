"""Images and label maps in physical space, their files, intensities, masks and surfaces."""

from .conversion import ImageLike as ImageLike
from .conversion import MaskLike as MaskLike
from .conversion import Voxels as Voxels
from .conversion import affine_ras as affine_ras
from .conversion import as_image as as_image
from .conversion import as_mask as as_mask
from .conversion import to_metatensor as to_metatensor
from .conversion import to_nibabel as to_nibabel
from .conversion import to_simpleitk as to_simpleitk
from .files.dicom.output import write_dicom_series as write_dicom_series
from .files.formats.header import Header as Header
from .files.formats.placement import Placement as Placement
from .files.formats.placement import placed as placed
from .files.formats.placement import straightened as straightened
from .files.formats.recognition import SUFFIXES as SUFFIXES
from .files.formats.recognition import read_header as read_header
from .files.formats.voxels import read_float32 as read_float32
from .files.formats.voxels import read_labels as read_labels
from .files.images import (
    check_image_output as check_image_output,
)
from .files.images import (
    read_grid as read_grid,
)
from .files.images import (
    read_image as read_image,
)
from .files.images import (
    read_label_map as read_label_map,
)
from .files.images import (
    read_volume as read_volume,
)
from .files.images import (
    write_image as write_image,
)
from .files.images import (
    write_label_map as write_label_map,
)
from .files.linear_transforms import LINEAR_FORMATS as LINEAR_FORMATS
from .files.linear_transforms import Ends as Ends
from .files.linear_transforms import LinearFormat as LinearFormat
from .files.linear_transforms import read_linear as read_linear
from .files.linear_transforms import recognised_format as recognised_format
from .files.linear_transforms import stored_grid as stored_grid
from .files.linear_transforms import write_linear as write_linear
from .files.points import (
    PointsFile as PointsFile,
)
from .files.points import (
    is_points_file as is_points_file,
)
from .files.points import (
    read_points as read_points,
)
from .files.points import (
    write_points as write_points,
)
from .files.transforms import (
    check_transform_output as check_transform_output,
)
from .files.transforms import (
    read_transform as read_transform,
)
from .files.transforms import (
    write_transform as write_transform,
)
from .image import Image as Image
from .image import LabelMap as LabelMap
from .image import marked_voxels as marked_voxels
from .intensity import (
    empty_value as empty_value,
)
from .intensity import (
    foreground as foreground,
)
from .intensity import (
    looks_like_labels as looks_like_labels,
)
from .intensity import (
    padding_value as padding_value,
)
from .intensity import (
    scale_intensity as scale_intensity,
)
from .masks import (
    has_several_labels as has_several_labels,
)
from .masks import (
    on_grid_of as on_grid_of,
)
from .masks import (
    one_structure as one_structure,
)
from .masks import (
    read_mask as read_mask,
)
from .preprocessing import to_working_spacing as to_working_spacing
from .surface import SURFACE_POINTS as SURFACE_POINTS
from .surface import surface_points as surface_points
