"""Networks, their registry, the stages made of them, and the weights that come in the package."""

from crossalign.models.attention import CrossModalAttention
from crossalign.models.attention_reg import AttentionReg, Extractor
from crossalign.models.correspondence import CorrespondenceReg
from crossalign.models.crop import crop_lattice
from crossalign.models.original import load_original_checkpoint
from crossalign.models.original_fusion import load_original_fusion_checkpoint
from crossalign.models.registry import build_model, count_parameters, model_names
from crossalign.models.stage import Stage, StageSettings, load_stage, save_stage

__all__ = [
    "AttentionReg",
    "CorrespondenceReg",
    "CrossModalAttention",
    "Extractor",
    "Stage",
    "StageSettings",
    "build_model",
    "count_parameters",
    "crop_lattice",
    "load_original_checkpoint",
    "load_original_fusion_checkpoint",
    "load_stage",
    "model_names",
    "save_stage",
]
