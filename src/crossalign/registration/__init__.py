"""register(fixed, moving, method, initial, fixed_mask) -> RegistrationResult, and the methods."""

from crossalign.registration.identity import Identity
from crossalign.registration.mutual_information import MutualInformation
from crossalign.registration.problem import Method, Problem, Solution, Step
from crossalign.registration.register import register
from crossalign.registration.result import RegistrationResult
from crossalign.registration.start import center_start, mask_center_start

__all__ = [
    "Identity",
    "Method",
    "MutualInformation",
    "Problem",
    "RegistrationResult",
    "Solution",
    "Step",
    "center_start",
    "mask_center_start",
    "register",
]
