"""The kernel: one walk over all plans, and the sums of negative log-likelihood (NLL).

Plans that agree on their first kept blocks share the hidden state there, so the plans form a tree
of kept prefixes: all 2**L subsets of L blocks cost 2**L - 1 block calls, not L * 2**(L - 1).

Shapes: P plans, B windows, T tokens read, S of them scored, D hidden width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from pruning_kit.plans.plan import Plan
from pruning_kit.walk.kernel import ApplyBlock


def walk(
    hidden_BTD: Tensor, apply_block: ApplyBlock, plans: Sequence[Plan], n_blocks: int
) -> Iterator[tuple[Plan, Tensor]]:
    """Yield each plan with the state after its last kept block, sharing kept prefixes.

    The branch that removes a block is walked before the one that keeps it, so a state is freed
    as soon as its block has been applied: at most (most blocks removed) + 2 states live at once.
    """
    pending = [(0, hidden_BTD, list(dict.fromkeys(plans)))]
    del hidden_BTD
    while pending:
        depth, state, group = pending.pop()
        while depth < n_blocks:
            removing = [plan for plan in group if depth in plan.removed]
            if 0 < len(removing) < len(group):
                keeping = [plan for plan in group if depth not in plan.removed]
                pending.append((depth, state, keeping))
                group = removing
            elif not removing:
                last = len(group) == 1 and _removes_all_after(group[0], depth, n_blocks)
                state = apply_block(depth, state, last)
            depth += 1
        yield group[0], state
        del state


def _removes_all_after(plan: Plan, block: int, n_blocks: int) -> bool:
    return plan.removed[len(plan.removed) - (n_blocks - 1 - block) :] == tuple(
        range(block + 1, n_blocks)
    )
