"""`python -m pruning_kit` is `pruning-kit`; torchrun starts it so."""

import sys

from pruning_kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
