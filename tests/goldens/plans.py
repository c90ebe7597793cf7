"""Makes `plans.json`: which plans some sweeps measure, as a count and a checksum of their list.

`python -m tests.goldens.plans` writes the file anew. The lists must not change: they are older than
the proposers that now make them.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pruning_kit.cli.choice import Choice, Mode

FILE = Path(__file__).with_suffix(".json")
SETTINGS = [
    "--mode baseline",
    "--mode sequential",
    "--mode combinatorial",
    "--mode combinatorial --sizes 2",
    "--mode combinatorial --sizes 3,2,3",
    "--mode combinatorial --sizes 1",
    "--mode combinatorial --max-removed 1",
    "--mode combinatorial --max-removed 3",
    "--mode combinatorial --sizes 2,4 --max-removed 3",
    "--mode sequential --plans 1+3 --strategies first,random --sizes 2 --seed 3",
    "--plans none",
    "--plans 2+1 --plans 0-2 --plans 1,2",
    "--plans shapley:4",
    "--plans shapley:7 --plans 3",
    "--plans shapley:3 --plans shapley:2",
    "--strategies last",
    "--strategies first,last,alternate,contiguous,random",
    "--strategies random --ratios 0.25,0.5 --seed 7",
    "--strategies alternate --ratios 0.25,0.9 --max-removed 3",
    "--mode combinatorial --sizes 3 --strategies contiguous --plans shapley:4",
]
DEPTHS = (5, 6, 9)


def choice_of(words: str) -> Choice:
    """The choice that a command line makes."""
    parts = words.split()
    given = dict(zip(parts[::2], parts[1::2], strict=True))
    plans = [value for name, value in zip(parts[::2], parts[1::2], strict=True) if "plans" in name]
    top = given.get("--max-removed")
    return Choice.typed(
        Mode(given["--mode"]) if "--mode" in given else None,
        plans or None,
        given.get("--strategies"),
        given.get("--sizes"),
        given.get("--ratios"),
        int(top) if top else None,
        5000,
        int(given.get("--seed", 0)),
    )


def digest(plans: Iterable[object]) -> str:
    """The count of the plans and a checksum of their list."""
    texts = list(map(str, plans))
    return f"{len(texts)} {hashlib.sha256(' '.join(texts).encode()).hexdigest()[:16]}"


def plans_of(words: str, n_blocks: int) -> list[object]:
    """What a command line measures, in one round."""
    (listed,) = choice_of(words).proposer.propose(n_blocks)
    return list(listed)


def main() -> None:
    """Write the digests."""
    lists = {words: {n: digest(plans_of(words, n)) for n in DEPTHS} for words in SETTINGS}
    FILE.write_text(json.dumps(lists, indent=1) + "\n")


if __name__ == "__main__":
    main()
