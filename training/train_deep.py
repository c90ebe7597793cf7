"""Train models that are deeper than the demo model, by its text, tokenizer and code, on a GPU.

    python -m training.train_deep --corpus CORPUS --blocks 12 --width 240 --out OUT

They are not shipped: searches are tried on them (docs/search.md), since all sets of 10 or 12 blocks
can still be measured. There is no teacher and one epoch or so, which takes about a minute.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from training.tokenizer import encode_documents
from training.train_demo import Recipe, read_text, train_logged

DEMO = Path(__file__).parents[1] / "src" / "pruning_kit" / "demo"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of train.txt or .xz")
    parser.add_argument("--blocks", type=int, required=True)
    parser.add_argument("--width", type=int, required=True, help="a multiple of 6, the heads")
    parser.add_argument("--steps", type=int, default=2000, help="of 64 windows of 512 tokens")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    tokenizer = Tokenizer.from_file(str(DEMO / TOKENIZER[0]))
    tokens = encode_documents(tokenizer, read_text(asked.corpus / "train.txt"))
    tokens_N = torch.from_numpy(tokens.astype(np.int64)).cuda()
    calibration = tokenizer.encode((DEMO / "calibration.txt").read_text(encoding="utf-8")).ids
    recipe = Recipe(
        asked.width, asked.blocks, 6, steps=asked.steps, lr=5e-3, weight_decay=0.03, dropout=0.0
    )
    calibration_N = torch.tensor(calibration).cuda()
    model = train_logged(f"{asked.blocks} blocks", recipe, tokens_N, calibration_N)
    model.half().save_pretrained(asked.out)
    for name in TOKENIZER:
        shutil.copy(DEMO / name, asked.out)


if __name__ == "__main__":
    main()
