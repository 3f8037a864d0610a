"""What the command line imports: no more than a command needs, since imports are most of what a quick one costs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossalign.geometry import Grid, Rigid
from crossalign.images import Image, LabelMap, write_image, write_label_map, write_transform

# Imported by nothing that `register` does: torch's compiler (1 s), tables, plots, DICOM, training.
NEEDLESS = ("torch._dynamo", "sympy", "pandas", "matplotlib", "monai", "nilearn", "pydicom", "jinja2", "scipy.ndimage")
TELL = """
import sys
from crossalign.cli.main import main
status = main(sys.argv[1:])
print("MODULES", *sys.modules)
sys.exit(status)
"""


def modules_of(*words: str) -> set[str]:
    """Run a command in a process of its own and return what it imported."""
    done = subprocess.run([sys.executable, "-c", TELL, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.partition("MODULES ")[2].split())


def test_help_imports_neither_torch_nor_what_commands_do() -> None:
    heavy = {"torch", "numpy", "SimpleITK", "safetensors", "hashlib", *NEEDLESS}
    assert not modules_of("--help") & heavy


def test_register_imports_what_it_uses(tmp_path: Path) -> None:
    """Files, the recognition of the scans and a shipped network, on very small volumes."""
    grid = Grid((24, 24, 24), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    scan = Image(torch.rand(grid.shape, generator=torch.Generator().manual_seed(1)), grid)
    mask = torch.zeros(grid.shape, dtype=torch.int64)
    mask[8:16, 8:16, 8:16] = 1
    for name in ("fixed", "moving"):
        write_image(scan, tmp_path / f"{name}.nii.gz")
    write_label_map(LabelMap(mask, grid), tmp_path / "mask.nii.gz")
    write_transform(Rigid.identity(), tmp_path / "initial.tfm")
    files = [str(tmp_path / name) for name in ("fixed.nii.gz", "moving.nii.gz")]
    named = {"--fixed-mask": "mask.nii.gz", "--initial": "initial.tfm", "--output-transform": "out.tfm"}
    words = [word for option, name in named.items() for word in (option, str(tmp_path / name))]
    imported = modules_of("register", *files, *words, "--method", "correspondence-label", "--initialisations", "1")
    assert "crossalign.networks.correspondence" in imported
    assert not imported & set(NEEDLESS)
    assert "crossalign.registration.iterative.mutual_information" not in imported


@pytest.mark.parametrize("first", ["nibabel", "pydicom"])
def test_pydicom_is_found_after_nibabel_was_imported_without_it(first: str) -> None:
    """The command line withholds it from nibabel alone, and only where nibabel comes first."""
    code = f"""
from crossalign.cli.imports import lean_nibabel
with lean_nibabel():
    import {first}
    import nibabel.nifti1
    assert nibabel.nifti1.have_dicom == {first == "pydicom"}
    import pydicom
assert pydicom.Dataset
"""
    subprocess.run([sys.executable, "-c", code], check=True)
