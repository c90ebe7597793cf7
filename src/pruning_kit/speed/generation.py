"""The calls that are timed: greedy generation by many cut models, step by step in turns.

What disturbs a shared machine comes and goes within tenths of a second. So the entries do not
wait for each other's whole generations: each makes a prefill or a few decode steps and hands over,
in mirrored order (A B C, C B A, …), until all have generated the same number of tokens. Entries
are compared turn by turn, so what slows some turns of all of them cancels. One model serves all,
cut anew for each turn. What is over soon is repeated within the round.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, StaticCache

from pruning_kit.inputs.architectures import Decoder
from pruning_kit.machine.devices import Stopwatch
from pruning_kit.machine.memory import peak_added_bytes, weight_bytes
from pruning_kit.plans.plan import Plan
from pruning_kit.pruning.surgery import recut
from pruning_kit.speed.depths import NULL_PAIR
from pruning_kit.speed.protocol import LatencyProtocol
from pruning_kit.speed.samples import Sample, at_one_level, undisturbed
from pruning_kit.speed.timings import DECODE, END_TO_END, END_TO_END_PLAIN, PREFILL, QUANTITIES
from pruning_kit.speed.turns import (
    SHORT,
    Repeats,
    Stretch,
    Turns,
    choose_repeats,
    choose_turns,
    groups,
    stretches,
    turn_lengths,
)

TRIAL_STEPS = 8


@dataclass(slots=True)
class Generation:
    """One entry's text in the making, and the seconds of its calls, turn by turn."""

    cache: Any = None
    tokens: list[Tensor] = field(default_factory=list)
    prefills_s: list[list[float]] = field(default_factory=list)
    steps_s: list[list[float]] = field(default_factory=list)

    def plain_s(self, n_steps: int) -> float:
        """Seconds of a prefill and so many steps, each as long as it was on average."""
        steps_s = list(chain(*self.steps_s))
        return fmean(chain(*self.prefills_s)) + n_steps * (fmean(steps_s) if steps_s else 0.0)


class Workload:
    """The timed calls of all entries, on the one model, cut for a moment.

    Eager: the key-value cache that grows. Otherwise a static cache for each entry, and the decode
    step compiled, the prefill not (as `generate` has it).

    Args:
        decoder: the whole model.
        plans: the plan of each entry.
        prompt_ids: the prompt of the end-to-end quantity.
        protocol: what is timed; checked by the caller.
        stopwatch: clock and synchronisation.
        turns: length of a turn; by default what the warm-up finds suitable.
    """

    def __init__(
        self,
        decoder: Decoder,
        plans: Sequence[Plan],
        prompt_ids: Sequence[int],
        protocol: LatencyProtocol,
        stopwatch: Stopwatch,
        turns: Turns | None = None,
    ) -> None:
        self.decoder, self.plans = decoder, plans
        self.protocol, self.stopwatch = protocol, stopwatch
        self.prompt_BT = _random_prompt(decoder.model, protocol)
        prompts = [list(prompt_ids)] * protocol.batch_size
        self.end_to_end_BT = torch.tensor(prompts).to(decoder.device)
        self._parts = stretches(self._n_end_to_end_steps)
        self._runs_made = 0
        self.turns = turns or SHORT
        self._turns_given = turns is not None
        self.repeats = Repeats()
        self._step = _step(protocol.execution)
        self._static_caches: dict[int, StaticCache] = {}

    @torch.no_grad()
    def sample_round(
        self, order: Sequence[int], quantities: Collection[str] = QUANTITIES
    ) -> dict[int, Sample]:
        """One sample of some quantities for every entry, by its number.

        Entries take turns with the others of their group: at most `AT_ONCE` that follow each
        other in `order`. The whole model rides in every group, at the place it has in `order`; by
        its time there the groups are brought to one level.
        """
        whole = NULL_PAIR[0]
        others = [entry for entry in order if entry != whole]
        samples = []
        for group in groups(others):
            place = order.index(whole) * (len(group) + 1) // len(order)
            group = [*group[:place], whole, *group[place:]]
            samples.append(self._sample_group(group, quantities))
        self._runs_made += self.repeats.end_to_end_runs
        return at_one_level(samples, whole)

    def warm_up(self, rounds: int, left_s: float) -> None:
        """Rounds that are not kept; how long they took decides on turns and repeats.

        Args:
            rounds: how many.
            left_s: seconds for these rounds and the first that are kept.
        """
        for _ in range(rounds):
            samples = self.sample_round(range(len(self.plans)))
        protocol = self.protocol
        self._suit_turns(samples[NULL_PAIR[0]][DECODE])
        round_s = left_s / (protocol.min_rounds + rounds)
        self.repeats = choose_repeats(samples, protocol.new_tokens, round_s)

    @torch.no_grad()
    def trial_round(self) -> tuple[float, ...]:
        """Seconds per token of the whole model, of it again, and of the smallest one, in turns."""
        smallest = max(range(len(self.plans)), key=lambda entry: self.plans[entry].size)
        generations = {entry: Generation() for entry in (*NULL_PAIR, smallest)}
        n_steps = min(self.protocol.new_tokens, TRIAL_STEPS)
        self._generate(generations, self.prompt_BT, n_steps, prefill_calls=1)
        step_s = undisturbed({entry: made.steps_s for entry, made in generations.items()})
        self._suit_turns(step_s[NULL_PAIR[0]])
        return tuple(step_s.values())

    def _suit_turns(self, step_s: float) -> None:
        """Make turns as long as suits the time of a step, unless their length was given."""
        if not self._turns_given:
            self.turns = choose_turns(self.decoder.device, step_s)

    def _sample_group(self, group: Sequence[int], quantities: Collection[str]) -> dict[int, Sample]:
        samples: dict[int, Sample] = {entry: {} for entry in group}
        if not {PREFILL, DECODE}.isdisjoint(quantities):
            self._add_short(samples, quantities)
        if END_TO_END in quantities:
            self._add_end_to_end(samples)
        return samples

    def _add_short(self, samples: Mapping[int, Sample], quantities: Collection[str]) -> None:
        """Add prefill and decode, or one of them."""
        made = self._short(list(samples), quantities)
        for quantity, turns_s in (
            (PREFILL, {entry: one.prefills_s for entry, one in made.items()}),
            (DECODE, {entry: one.steps_s for entry, one in made.items()}),
        ):
            if quantity in quantities:
                for entry, seconds in undisturbed(turns_s).items():
                    samples[entry][quantity] = seconds

    def _add_end_to_end(self, samples: Mapping[int, Sample]) -> None:
        made = self._end_to_end(list(samples), self._stretches_of_this_round())
        first_s = undisturbed({entry: one.prefills_s for entry, one in made.items()})
        next_s = undisturbed({entry: one.steps_s for entry, one in made.items()})
        for entry, sample in samples.items():
            sample[END_TO_END] = first_s[entry] + self._n_end_to_end_steps * next_s[entry]
            sample[END_TO_END_PLAIN] = made[entry].plain_s(self._n_end_to_end_steps)

    def _stretches_of_this_round(self) -> list[Stretch]:
        """One for each run, the next in turn; the same for all entries."""
        runs = range(self._runs_made, self._runs_made + self.repeats.end_to_end_runs)
        return [self._parts[run % len(self._parts)] for run in runs]

    @property
    def _n_end_to_end_steps(self) -> int:
        """Decode steps of an end-to-end run: all new tokens but the one of the prefill."""
        return self.protocol.end_to_end_tokens - self.end_to_end_BT.shape[1] - 1

    def _short(self, group: Sequence[int], quantities: Collection[str]) -> dict[int, Generation]:
        """Prefills of the random prompt, and decode runs after some of them.

        While prefill rests, one is made for each decode run; while decode rests, none of its steps.
        """
        generations = {entry: Generation() for entry in group}
        calls = self.repeats.prefill_calls if PREFILL in quantities else 0
        steps = self.protocol.new_tokens if DECODE in quantities else 0
        runs = self.repeats.decode_runs
        for run in range(runs):
            prefills = calls * (run + 1) // runs - calls * run // runs or 1
            self._generate(generations, self.prompt_BT, steps, prefills)
        return generations

    def _end_to_end(self, group: Sequence[int], parts: Iterable[Stretch]) -> dict[int, Generation]:
        """A prefill for each stretch, and its steps."""
        generations = {entry: Generation() for entry in group}
        for part in parts:
            self._generate(generations, self.end_to_end_BT, part.steps, 1, part.ahead)
        return generations

    @torch.no_grad()
    def end_to_end_tokens(self, entry: int) -> Tensor:
        """What the end-to-end calls of an entry produce: prompt and continuation, (B, T)."""
        whole = Stretch(0, self._n_end_to_end_steps)
        generation = self._end_to_end([entry], [whole])[entry]
        return torch.cat([self.end_to_end_BT, *generation.tokens], dim=1)

    def _generate(
        self,
        generations: Mapping[int, Generation],
        prompt_BT: Tensor,
        n_steps: int,
        prefill_calls: int,
        ahead: int = 0,
    ) -> None:
        """Prefill and `n_steps` decode steps of every entry, in turns.

        Before the steps, `ahead` further tokens are read at once, which is not timed.
        """

        def prefill(model: PreTrainedModel, entry: int, calls: int) -> None:
            seconds = [
                self._prefill(model, entry, generations[entry], prompt_BT) for _ in range(calls)
            ]
            generations[entry].prefills_s.append(seconds)
            if ahead:
                self._read(model, generations[entry], ahead)

        def decode(model: PreTrainedModel, entry: int, calls: int) -> None:
            seconds = [self._decode(model, generations[entry]) for _ in range(calls)]
            generations[entry].steps_s.append(seconds)

        order = list(generations)
        turns = [(prefill, calls) for calls in turn_lengths(prefill_calls, self.turns.prefills)]
        turns += [(decode, calls) for calls in turn_lengths(n_steps, self.turns.steps)]
        for number, (kind, calls) in enumerate(turns):
            for entry in order if number % 2 == 0 else reversed(order):
                with self._turn(entry) as model:
                    kind(model, entry, calls)

    @contextmanager
    def _turn(self, entry: int) -> Iterator[PreTrainedModel]:
        """Lend the model cut for an entry, warm."""
        clock = self.stopwatch.clock
        with recut(self.decoder, self.plans[entry]) as model:
            end = clock() + self.turns.lead_in_s
            while self.turns.lead_in_s and clock() < end:
                model(self.prompt_BT[:, :1], use_cache=False)
            yield model

    def _prefill(
        self, model: PreTrainedModel, entry: int, generation: Generation, prompt_BT: Tensor
    ) -> float:
        generation.cache = self._cache(model, entry)
        generation.tokens.clear()
        return self.stopwatch.seconds(
            lambda: generation.tokens.append(next_token(model, prompt_BT, generation.cache))
        )

    @staticmethod
    def _read(model: PreTrainedModel, generation: Generation, n_tokens: int) -> None:
        """Read on, whatever it is: a step's time hangs on how much was read, not on what."""
        tokens_BT = generation.tokens[-1].expand(-1, n_tokens).contiguous()
        generation.tokens.append(next_token(model, tokens_BT, generation.cache))

    def _decode(self, model: PreTrainedModel, generation: Generation) -> float:
        tokens, cache = generation.tokens, generation.cache
        return self.stopwatch.seconds(lambda: tokens.append(self._step(model, tokens[-1], cache)))

    def _cache(self, model: PreTrainedModel, entry: int) -> Any:
        """An empty cache; a static one is of one length, so that one compiled step serves all."""
        if self.protocol.execution == "eager":
            return DynamicCache(config=model.config)
        if entry not in self._static_caches:
            protocol = self.protocol
            length = max(protocol.prompt_tokens + protocol.new_tokens, protocol.end_to_end_tokens)
            self._static_caches[entry] = StaticCache(config=model.config, max_cache_len=length)
        cache = self._static_caches[entry]
        cache.reset()
        return cache

    @torch.no_grad()
    def peak_bytes(self, entry: int) -> int | None:
        """Weights of the cut model and the most that prefill and decode add to them.

        Compiled code keeps buffers of its own, so only eager execution is answered for.
        """
        if self.protocol.execution != "eager":
            return None
        with recut(self.decoder, self.plans[entry]) as model:

            def prefill_and_decode() -> None:
                cache = DynamicCache(config=model.config)
                token_B1 = next_token(model, self.prompt_BT, cache)
                for _ in range(self.protocol.new_tokens):
                    token_B1 = next_token(model, token_B1, cache)

            return weight_bytes(model) + peak_added_bytes(prefill_and_decode, self.decoder.device)


def next_token(model: PreTrainedModel, tokens_BT: Tensor, cache: Any) -> Tensor:
    """Read tokens, extend the cache, and choose the most probable next token: shape (B, 1)."""
    logits = model(tokens_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return logits[:, -1].argmax(-1, keepdim=True)


Step = Callable[[PreTrainedModel, Tensor, Any], Tensor]


def _step(execution: str) -> Step:
    """The decode step of an execution. A CUDA graph's output is overwritten by its next replay."""
    if execution == "eager":
        return next_token
    how = "reduce-overhead" if execution == "cuda-graph" else "default"
    # Compiled versions hang on the code object: with one of its own, a workload neither meets the
    # compiler's limit because of earlier ones nor searches among their versions.
    own = FunctionType(next_token.__code__.replace(), next_token.__globals__)
    compiled = torch.compile(own, mode=how, fullgraph=True, dynamic=False)

    def step(model: PreTrainedModel, tokens_BT: Tensor, cache: Any) -> Tensor:
        if execution == "cuda-graph":
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return compiled(model, tokens_BT, cache).clone()

    return step


def _random_prompt(model: PreTrainedModel, protocol: LatencyProtocol) -> Tensor:
    generator = torch.Generator().manual_seed(protocol.seed)
    shape = protocol.batch_size, protocol.prompt_tokens
    return torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)
