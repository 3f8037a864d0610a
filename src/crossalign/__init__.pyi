"""crossalign: register and fuse 3-D medical images of different modalities. Research software, not a medical device."""

from .data import read_manifest as read_manifest
from .evaluation import Evaluation as Evaluation
from .evaluation import evaluate as evaluate
from .explanation import Explanation as Explanation
from .explanation import explain as explain
from .fusion import FusionMethod as FusionMethod
from .fusion import FusionResult as FusionResult
from .fusion import fuse as fuse
from .fusion import named_fusion_method as named_fusion_method
from .geometry import Grid as Grid
from .geometry import Rigid as Rigid
from .images import Image as Image
from .images import LabelMap as LabelMap
from .images import Voxels as Voxels
from .images import as_image as as_image
from .images import as_mask as as_mask
from .images import read_image as read_image
from .images import read_label_map as read_label_map
from .images import read_transform as read_transform
from .images import to_metatensor as to_metatensor
from .images import to_nibabel as to_nibabel
from .images import to_simpleitk as to_simpleitk
from .images import write_dicom_series as write_dicom_series
from .images import write_image as write_image
from .images import write_label_map as write_label_map
from .images import write_transform as write_transform
from .models import Model as Model
from .models import load_model as load_model
from .registration import Method as Method
from .registration import RegistrationResult as RegistrationResult
from .registration import named_method as named_method
from .registration import register as register
from .report.notebook import Shown as Shown
from .report.notebook import show as show

__version__: str
