"""Bridges: over each gap that removed blocks leave, a ridge solution folded into existing weights.

    gaps      the gaps of a plan, and the path that bridges them
    folding   into which blocks a bridge can be folded, found by a look at each
    moments   the sums over the fitting text that all bridges are solved from
    ridge     the solution of one gap for one strength
    fitting   sums, solutions and strengths of many gaps, within bounded memory
    bridging  the bridges of a model as a recovery: `1+3~bridged`

A bridge from a kept block i to the next kept block j is another output projection of i's MLP,
fitted once on the whole model's states: with the activations H that enter it, the stream X_i+1
after block i and the stream X_j that enters block j, both of the whole model, it is

    [dW; db] = (H'DH + s*I)^-1 H'D (X_j - X_i+1),

H with a column of ones, whose coefficient is not penalised; D the inverse variance of each row of
X_i+1, as a norm has it; the strength s relative to the mean of the diagonal. It adds no parameter.

Shapes: N tokens, F activations, H = F or F + 1 of them with the column of ones, D hidden width.
"""
