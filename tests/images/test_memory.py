"""The memory guard: what it takes for each voxel, and what the machine or a container leaves."""

from pathlib import Path

import pytest

from crossalign.errors import ImageError
from crossalign.images import memory


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def test_the_limit_of_a_container_counts_and_file_pages_do_not(group: Path) -> None:
    (group / "memory.max").write_text(f"{3 * 2**30}\n")
    (group / "memory.current").write_text(f"{2 * 2**30}\n")
    (group / "memory.stat").write_text(f"anon {2**30}\ninactive_file {2**29}\nactive_file {2**28}\n")
    free = memory.available_bytes()
    assert free is not None
    assert free <= 2**30 + 2**29 + 2**28
    assert memory.memory_limit() == max(memory.FLOOR_BYTES, free)


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n"])
def test_a_group_without_a_limit_leaves_what_the_machine_has(group: Path, limit: str) -> None:
    without = memory.available_bytes()
    (group / "memory.max").write_text(limit)
    (group / "memory.current").write_text("0\n")
    (group / "memory.stat").write_text("anon 0\n")
    free = memory.available_bytes()
    assert without is not None
    assert free is not None
    assert abs(free - without) < 2**30


def test_a_large_scan_is_judged_by_what_a_registration_takes() -> None:
    memory.check_memory((600, 600, 600), "scan.nii", 24 * 2**30)
    with pytest.raises(ImageError, match=r"scan.nii: \(600, 600, 600\) voxels need 7\.2 GiB .* 4\.0 GiB"):
        memory.check_memory((600, 600, 600), "scan.nii", 4 * 2**30)


def test_a_small_machine_still_reads_ordinary_scans(group: Path) -> None:
    (group / "memory.max").write_text(f"{2**28}\n")
    (group / "memory.current").write_text("0\n")
    (group / "memory.stat").write_text("anon 0\n")
    memory.check_memory((256, 256, 128), "scan.nii")
