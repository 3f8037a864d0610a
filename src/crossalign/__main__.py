"""`python -m crossalign` is `crossalign`."""

import sys

from crossalign.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
