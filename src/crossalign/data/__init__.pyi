"""Cases: pairs of scans with a known answer, from a manifest."""

from .case import (
    Landmarks as Landmarks,
)
from .case import (
    LoadedCase as LoadedCase,
)
from .case import (
    load_case as load_case,
)
from .case import (
    read_landmarks as read_landmarks,
)
from .manifest import Case as Case
from .manifest import in_split as in_split
from .manifest import read_manifest as read_manifest
from .scan_pairs import ScanPair as ScanPair
from .scan_pairs import read_scan_pairs as read_scan_pairs
