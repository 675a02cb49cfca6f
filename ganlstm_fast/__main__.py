"""``python -m ganlstm_fast``."""

import sys

from ganlstm_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
