"""Figures of a stored run, for print, for the page and for notebooks; None where there is nothing.

perplexity_bars              every plan as cut, or of many the best
perplexity_bridged           what bridging changes: plans as cut, bridged and recovered
training_curves              perplexity of unseen text while models were trained
speed_against_perplexity     what plans win against what they cost, and the front
perplexity_by_removed_block  each single block
pair_heatmap                 each pair of blocks
interaction_matrix           what a pair costs beyond the sum of its two
shapley_values               each block's share
perplexity_by_size           best, median and worst set of each size
path_of_search               what a search found cheapest, against the evaluations it made
save_figures                 any of these as files
"""

from pruning_kit.reporting.figures.bars import perplexity_bars
from pruning_kit.reporting.figures.blocks import perplexity_by_removed_block, shapley_values
from pruning_kit.reporting.figures.bridging import perplexity_bridged
from pruning_kit.reporting.figures.catalogue import OF_EVERY_SWEEP, save_figures
from pruning_kit.reporting.figures.front import speed_against_perplexity
from pruning_kit.reporting.figures.pairs import interaction_matrix, pair_heatmap
from pruning_kit.reporting.figures.searching import path_of_search
from pruning_kit.reporting.figures.sizes import perplexity_by_size
from pruning_kit.reporting.figures.training import training_curves

__all__ = [
    "OF_EVERY_SWEEP",
    "interaction_matrix",
    "pair_heatmap",
    "path_of_search",
    "perplexity_bars",
    "perplexity_bridged",
    "perplexity_by_removed_block",
    "perplexity_by_size",
    "save_figures",
    "shapley_values",
    "speed_against_perplexity",
    "training_curves",
]
