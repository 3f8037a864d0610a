"""The file formats of images: NIfTI, NRRD and MetaImage, told apart by what the files hold."""

from crossalign.images.formats.header import Header
from crossalign.images.formats.placement import Placement, placed
from crossalign.images.formats.recognition import SUFFIXES, read_header
from crossalign.images.formats.straighten import straightened
from crossalign.images.formats.voxels import read_float32, read_labels

__all__ = ["SUFFIXES", "Header", "Placement", "placed", "read_float32", "read_header", "read_labels", "straightened"]
