"""The historic entry: `python main.py --mode MODE [--save_results]`, and every other verb."""

import sys

try:
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent / "src"))

    from pruning_kit.__main__ import main
except KeyboardInterrupt:  # which `main` answers for itself
    sys.stderr.write("Stopped.\n")
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(default_verb="sweep"))
