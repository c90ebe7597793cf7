"""The historic entry: `python main.py --mode MODE [--save_results]`, and every other verb."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))

from pruning_kit.cli import main, program_of

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], default_verb="sweep", program=program_of(sys.argv[0])))
