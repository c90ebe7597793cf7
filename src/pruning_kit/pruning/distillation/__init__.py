"""Distillation: a pruned model learns again to predict as the whole one does.

Shapes: B sequences, T tokens of each, N tokens in a row, D hidden width, V vocabulary.

    schedule    how much is read at a time, and how fast is learnt
    loss        the divergence of two predictions and its gradients, in pieces of the vocabulary
    ends        a model as the states before its output embedding, and that embedding
    muon        the optimiser of the matrices of blocks
    optimising  which optimiser has which weights
    writing     text that the whole model writes itself
    mixture     what is read in each step
    training    the steps, what is kept of them, and how a stopped training goes on
    adapters    training low-rank adapters in place of the weights
"""
