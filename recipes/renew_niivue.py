"""Fetches the NiiVue that the pages are made with from npm, at the version pinned in niivue.json, and checks it.

To renew it, change `version` and `integrity` (`npm view @niivue/niivue@VERSION dist.integrity`) in
src/crossalign/report/niivue/niivue.json, and run this. It needs npm; building and using crossalign do not.
"""

import base64
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "src" / "crossalign" / "report" / "niivue"


def main() -> None:
    """Write niivue.umd.js.gz, and the bundle's sha256 into niivue.json."""
    pinned = json.loads((FOLDER / "niivue.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        name = f"{pinned['package']}@{pinned['version']}"
        subprocess.run(["npm", "pack", "--silent", name], cwd=folder, check=True)
        archive = next(Path(folder).glob("*.tgz"))
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != pinned["integrity"]:
            sys.exit(f"{name} has the integrity {found}, expected {pinned['integrity']}: nothing was written")
        with tarfile.open(archive) as opened:
            member = opened.extractfile(f"package/{pinned['file']}")
            if member is None:
                sys.exit(f"{name} holds no {pinned['file']}")
            bundle = member.read()
    (FOLDER / "niivue.umd.js.gz").write_bytes(gzip.compress(bundle, 9, mtime=0))
    pinned["sha256"] = hashlib.sha256(bundle).hexdigest()
    (FOLDER / "niivue.json").write_text(json.dumps(pinned, indent=2) + "\n")
    print(f"wrote {FOLDER / 'niivue.umd.js.gz'}: {name}, {len(bundle) / 1e6:.1f} MB before compression")


if __name__ == "__main__":
    main()
