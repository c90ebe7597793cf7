"""Makes `plans.json`: which plans some sweeps measure, as a count and a checksum of their list.

`python -m tests.goldens.plans` writes the file anew. The lists must not change: they are older than
the proposers that now make them.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from pruning_kit.cli.request import Mode, Request

FILE = Path(__file__).with_suffix(".json")
SETTINGS = [
    "--mode baseline",
    "--mode sequential",
    "--mode combinatorial",
    "--try pairs",
    "--try combinatorial:3,2,3",
    "--try combinatorial:1",
    "--mode combinatorial --max-removed 1",
    "--mode combinatorial --max-removed 3",
    "--try combinatorial:2,4,max=3",
    "--mode sequential --try 1+3 --try first,random:2,seed=3",
    "--try none",
    "--try 2+1 --try 0-2 --try 1,2",
    "--try shapley:4",
    "--try shapley:7 --try 3",
    "--try shapley:5",
    "--try last",
    "--try first,last,alternate,contiguous,random",
    "--try random:0.25,0.5,seed=7",
    "--try alternate:0.25,0.9,max=3",
    "--try combinatorial:3 --try contiguous:3 --try shapley:4",
]
DEPTHS = (5, 6, 9)


def request_of(words: str) -> Request:
    """The request that a command line makes."""
    given = list(zip(words.split()[::2], words.split()[1::2], strict=True))
    options = dict(given)
    names = ("--mode", "--max-removed", "--search-minutes", "--max-params")
    mode, top, minutes, params = map(options.get, names)
    return Request(
        Mode(mode) if mode else None,
        tuple(word for option, word in given if option == "--try"),
        int(top) if top else None,
        search_minutes=int(minutes) if minutes else None,
        max_params=int(1e6 * float(params)) if params else None,
    )


def digest(plans: Iterable[object]) -> str:
    """The count of the plans and a checksum of their list."""
    texts = list(map(str, plans))
    return f"{len(texts)} {hashlib.sha256(' '.join(texts).encode()).hexdigest()[:16]}"


def plans_of(words: str, n_blocks: int) -> list[object]:
    """What a command line measures, in one round."""
    listed = next(request_of(words).proposer.propose(n_blocks))
    return list(listed)


def main() -> None:
    """Write the digests."""
    lists = {words: {n: digest(plans_of(words, n)) for n in DEPTHS} for words in SETTINGS}
    FILE.write_text(json.dumps(lists, indent=1) + "\n")


if __name__ == "__main__":
    main()
