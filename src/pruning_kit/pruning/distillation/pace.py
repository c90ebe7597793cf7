"""Pace: how fast a distillation goes here, by a trial, and how far it gets in a time."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from pruning_kit.errors import PlanError
from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine.devices import Stopwatch, device_sync
from pruning_kit.plans.distilled import LEAST_TOKENS, Amount
from pruning_kit.pruning.distillation.distilled import MOST_WRITTEN, Learning
from pruning_kit.pruning.distillation.training import LEAST_LOOKS, LOOKED_AT
from pruning_kit.pruning.distillation.writing import Writer, choose_at_once, prompts

FIRST_GUESS = {"cuda": 8_000_000, "cpu": 200_000}
"""Tokens whose batches the first trial has."""
TRIAL_STEPS = 7
"""Timed; one of them alone may take a third more or less."""
WARM_STEPS = 3
"""Of writing, before its time is taken."""
WRITTEN_AT_TRIAL = 16
"""Tokens of each sequence."""
SURE = 0.9
"""Share of a time that is planned for, since paces vary."""


Share = Callable[[int], float]
"""Of some tokens, that the whole model writes."""


START_AND_WHOLE = 2
"""Looks beside those of the training: at the start, and at the whole model."""


class Pace(NamedTuple):
    """Seconds that parts of a distillation take."""

    read_s: float
    """Of a token that is learnt from."""
    written_s: float
    """Of a token that the whole model writes."""
    look_s: float
    """Of a look at the unseen text."""

    def seconds(self, tokens: int, share_written: Share) -> float:
        """Of a training on so many tokens."""
        n_written = min(tokens * share_written(tokens), MOST_WRITTEN)
        read_s = tokens * self.read_s
        looks_s = max(LEAST_LOOKS * self.look_s, LOOKED_AT * read_s)
        return read_s + n_written * self.written_s + looks_s + START_AND_WHOLE * self.look_s

    def tokens(self, seconds: float, share_written: Share) -> int:
        """That can be read in a time; 0 if it is over before a first one."""

        def takes(tokens: int) -> float:
            return self.seconds(tokens, share_written)

        longest = int(seconds / self.read_s)
        return bisect_right(range(1, longest + 1), SURE * seconds, key=takes)


def pace_of(learning: Learning, student: Decoder, amount: Amount) -> Pace:
    """Try the batches of an amount on a copy of a pruned model.

    Args:
        learning: what it would learn from.
        student: the pruned model; it is left as it is.
        amount: how long the training would be.
    """
    schedule, model = learning.schedule(amount), learning.whole.model
    stopwatch = Stopwatch(learning.clock, device_sync(model.device))
    seconds, written_s = stopwatch.seconds, 0.0
    if learning.settings.writes:
        writer = Writer(model, choose_at_once(model, schedule.length), schedule.length, seed=0)
        prompts_BT = prompts(learning.text_N, writer.at_once, schedule.length, seed=0)
        writer.go_on(prompts_BT, n_steps=WARM_STEPS)
        written_s = seconds(lambda: writer.go_on(prompts_BT, n_steps=WRITTEN_AT_TRIAL))
        written_s /= WRITTEN_AT_TRIAL * writer.at_once
    plain = learning.reading_only()
    training = plain.training(Decoder(copy.deepcopy(student.model)), schedule)
    training.try_step(0)
    read_s = median(seconds(lambda: training.try_step(1)) for _ in range(TRIAL_STEPS))
    return Pace(read_s / schedule.tokens_per_step, written_s, seconds(training.nats))


def amount_within(
    seconds: float, learning: Learning, student: Decoder, adapters: bool = False
) -> tuple[Amount, Pace]:
    """The longest training that a time allows, by two trials: batches hang on the length.

    Processes that train together try it together; what the first one finds holds for all.

    Raises:
        PlanError: if it allows none.
    """
    kind, first = learning.whole.device.type, learning.together.first
    amount = Amount(FIRST_GUESS.get(kind, FIRST_GUESS["cpu"]), adapters)
    began = learning.clock()
    for _ in range(2):
        pace = pace_of(learning, student, amount)
        left = first(seconds - (learning.clock() - began))
        tokens = int(first(pace.tokens(left, learning.share_written)))
        if tokens < LEAST_TOKENS:
            raise PlanError(
                f"cannot distil in what is left of the time: {max(0.0, left):.0f} seconds are "
                f"enough for {tokens:,} tokens, and at least {LEAST_TOKENS:,} are needed. Give "
                "more minutes, or measure fewer windows of the texts with `max_windows`."
            )
        amount = Amount(_two_digits(tokens), adapters)
    return amount, pace


def _two_digits(tokens: int) -> int:
    """Rounded down, to be read by people."""
    unit = 10 ** max(0, len(str(tokens)) - 2)
    return tokens // unit * unit
