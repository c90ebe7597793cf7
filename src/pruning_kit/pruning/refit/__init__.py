"""Refit: the output projections of a bridged model, fitted anew one after the other.

    streams    the states of whole and pruned model over a text, block by block
    stepwise   one projection after the other, each kept if it helps
    refitted   the whole as a recovery: `1+3~refitted`

A bridge is fitted on the states of the whole model. From the first gap on the pruned model's states
are others, so each output projection, of attention and of MLP in turn, is given the ridge solution
on what enters it in the pruned model, toward the stream of the whole model: behind the same
sublayer, or before a gap behind that gap. A step is kept where it lowers the NLL on the first half
of the judging text; all of them together only where the other half, which no step was chosen on, is
better by more than chance.

Shapes: B windows, T tokens read, D hidden width; F, H as in `bridges`.
"""
