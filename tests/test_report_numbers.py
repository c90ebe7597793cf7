"""Every number in a report, recomputed from the stored sums: three runs that differ in kind."""

import math
import re
from itertools import combinations

import numpy as np
import pytest

from pruning_kit.findings.analysis import analyse
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import STRATEGIES, singles, strategy_plan
from pruning_kit.reporting import formats
from pruning_kit.reporting.contents import build_document
from pruning_kit.reporting.words.numbers import change, format_ppl, format_ratio
from pruning_kit.runs.results import load_run
from pruning_kit.speed.timings import END_TO_END
from tests.synthetic_runs import write_run
from tests.synthetic_scores import additive_costs


def without_block_0(costs, pairs=None):
    """What is left of costs by bridges; a set with block 0 has none."""
    left = additive_costs((0.0, *costs), pairs)
    return lambda plan: left(plan) if plan.size and 0 not in plan.removed else None


RUNS = {
    "all sets, two further texts": {
        "n_blocks": 4,
        "cost": additive_costs((0.9, 0.16, 0.5, 0.12)),
        "also_on": [
            additive_costs((0.9, 0.16, 0.5, 0.12)),
            additive_costs((0.7, 0.16, 0.3, 0.28), {(1, 2): 0.3}),
        ],
        "timed": False,
    },
    "all sets, two texts, all measures": {
        "n_blocks": 5,
        "cost": additive_costs((3.0, 0.08, 0.3, 0.05, 0.9), {(1, 2): 0.4}),
        "selection": True,
        "selection_cost": additive_costs((3.0, 0.04, 0.3, 0.07, 0.9), {(1, 2): 0.4}),
        "comparing": True,
    },
    "all sets, one text, costly": {
        "n_blocks": 4,
        "cost": additive_costs((0.9, 0.35, 1.2, 0.3), {(1, 3): -0.2}),
        "timed": False,
    },
    "all sets, bridged, two texts": {
        "n_blocks": 5,
        "cost": additive_costs((3.0, 0.3, 0.25, 0.4, 0.9), {(1, 2): 0.4}),
        "bridged": {
            "reported": without_block_0((0.11, 0.09, 0.3, 0.06), {(1, 2): 0.2}),
            "selection": without_block_0((0.11, 0.12, 0.3, 0.05), {(1, 2): 0.2}),
        },
        "selection": True,
        "comparing": True,
    },
    "single blocks and a pair, few windows": {
        "plans": [Plan(), *singles(6), Plan((1, 3))],
        "n_windows": 30,
        "comparing": True,
    },
}


class Sums:
    """What the stored sums say, computed the plainest way."""

    def __init__(self, run):
        self.run, self.n_blocks = run, run.n_blocks
        # a bridged variant stands behind its plan as cut, whose place it takes
        self.nats, self.as_cut = {}, {}
        for role in run.roles:
            nats = list(zip(run.variants, run.nll(role).sum(axis=1).tolist(), strict=True))
            self.nats[role] = {variant.plan: sum_ for variant, sum_ in nats}
            self.as_cut[role] = {v.plan: sum_ for v, sum_ in nats if v.recovery is None}
        self.bridged = [v.plan for v in run.variants if v.recovery is not None]
        self.place = {v.plan: index for index, v in enumerate(run.variants)}
        self.tokens = {role: run.targets(role).sum() for role in run.roles}
        self.chosen_on = run.facts.choosing_role
        self.plans = [plan for plan in run.plans if plan.size < run.n_blocks]

    def ppl(self, plan, role="reported"):
        return math.exp(self.nats[role][plan] / self.tokens[role])

    def ratio(self, plan, role="reported"):
        return self.ppl(plan, role) / self.ppl(Plan(), role)

    def of_size(self, size):
        """Measured sets of a size, the best on the text chosen on first."""
        found = [plan for plan in self.plans if plan.size == size]
        return sorted(found, key=lambda plan: self.ratio(plan, self.chosen_on))

    def mean(self, measure, plan):
        row = self.run.measured(measure)[self.place[plan]]
        return row.sum() / self.tokens["reported"]

    def ms(self, plan):
        timings = self.run.timings
        pool = next(i for i, pool in enumerate(timings.pools) if plan in pool)
        members = [i for i, entry in enumerate(timings.entries) if entry.pool == pool]
        return 1e3 * float(np.median(timings.seconds(END_TO_END)[:, members]))


@pytest.fixture(scope="module", params=RUNS)
def told(request, tmp_path_factory):
    """A run, its sums, and what its report says by the names of sections."""
    run = load_run(write_run(tmp_path_factory.mktemp("run") / "run", **RUNS[request.param]))
    document = build_document(run, analyse(run))
    return run, Sums(run), {section.name: section for section in document.sections}


def said(sections, pattern):
    """All matches of a pattern in the sentences of a report."""
    text = "\n".join(text for section in sections.values() for text in section.sentences)
    return re.findall(pattern, text)


def as_ratio(text):
    """`+7.1 %` or `3.98×` as a ratio."""
    if text.endswith("×"):
        return float(text[:-1].replace(",", ""))
    return 1 + float(text.removesuffix(" %").replace("−", "-")) / 100


CHANGE = r"([+−]?[\d.,]+(?: %|×))"
SETS = r"(?:[Bb]locks? )?([\d+-]+)"


def test_costs_of_named_sets_are_those_of_the_sums(told):
    _, sums, sections = told
    pattern = rf"{SETS}(?: can be removed at little cost)?: perplexity {CHANGE}"
    taken = said(sections, pattern)
    taken += said(sections, rf"Best (?:measured )?set of \d: {SETS}, {CHANGE}(?! on)")
    assert taken
    for name, cost in taken:
        assert change(sums.ratio(Plan.parse(name))) == cost
    for name, cost in said(sections, rf"\(next: {SETS}, {CHANGE}\)"):
        assert change(sums.ratio(Plan.parse(name), sums.chosen_on)) == cost


def test_parameters_agreement_and_time_of_the_set_to_take_are_those_measured(told):
    run, sums, sections = told
    pattern = rf"blocks? {SETS}(?: can be removed at little cost)?: perplexity ([^\n]*)\."
    found = said(sections, pattern)
    assert found
    for name, facts in found:
        plan = Plan.parse(name)
        fewer = 100 * (1 - run.parameters[plan] / run.parameters[Plan()])
        assert f"{fewer:.1f} % fewer parameters" in facts
        agreed = re.search(r"agreement ([\d.]+) %", facts)
        assert (agreed is None) == (run.as_cut("agreement") is None)
        assert agreed is None or float(agreed[1]) == pytest.approx(
            100 * sums.mean("agreement", plan), abs=0.051
        )
        saved = re.search(r"([\d.]+) % less time", facts)
        assert (saved is None) == (run.timings is None)
        if saved:
            expected = 100 * (1 - sums.ms(plan) / sums.ms(Plan()))
            assert float(saved[1]) == pytest.approx(expected, abs=1)


def test_little_cost_and_the_rule_of_thumb_are_kept_to(told):
    _, sums, sections = told
    both = {
        plan: max(sums.ratio(plan), sums.ratio(plan, sums.chosen_on)) for plan in sums.plans[1:]
    }
    for name, _ in said(sections, rf"{SETS} can be removed at little cost(:)"):
        assert both[Plan.parse(name)] <= 1.1
    if said(sections, "No (?:single )?block can be removed"):
        assert all(ratio > 1.1 for ratio in both.values())
    for name in said(sections, rf"Best (?:measured )?set of \d: {SETS}, .* over the rule"):
        assert sums.ratio(Plan.parse(name), sums.chosen_on) > 1.5


def test_the_best_sets_are_the_best_and_the_table_holds_their_numbers(told):
    run, sums, sections = told
    table = sections["summary"].table
    columns = dict(zip(table.headings, zip(*table.rows, strict=True), strict=False))
    plans = [Plan.parse(name.removesuffix(" *")) for name in columns["Removed"]]
    sizes = sorted({plan.size for plan in sums.plans})
    assert plans == [sums.of_size(size)[0] for size in sizes]
    costs = [math.exp(sums.as_cut["reported"][plan] / sums.tokens["reported"]) for plan in plans]
    assert list(columns["PPL"]) == list(map(format_ppl, costs))
    assert ("Bridged" in columns) == bool(sums.bridged)
    for plan, ppl in zip(plans, columns.get("Bridged", ()), strict=False):
        assert ppl == (format_ppl(sums.ppl(plan)) if plan in sums.bridged else "")
    params = [f"{run.parameters[plan] / 1e6:.2f}" for plan in plans]
    assert list(columns["Params"]) == params
    assert ("KL" in columns) == (run.as_cut("kl") is not None)
    assert ("Agree" in columns) == ("KL" in columns and not sums.bridged)
    for plan, kl, agree in zip(
        plans, columns.get("KL", ()), columns.get("Agree", ()), strict=False
    ):
        assert float(kl) == pytest.approx(sums.mean("kl", plan), abs=6e-4)
        assert float(agree) == pytest.approx(sums.mean("agreement", plan), abs=6e-4)
    for plan, ms in zip(plans, columns.get("ms", ()), strict=False):
        assert float(ms.split(" ± ")[0]) == pytest.approx(sums.ms(plan), rel=6e-3)


def test_blocks_are_ordered_by_what_removing_them_alone_costs(told):
    _, sums, sections = told
    ((order, _),) = said(
        sections, r"Most costly alone first(?:, bridged[^:]*)?: ([\d >≈,]+)( \(|\.)"
    )
    blocks = [int(block) for block in re.findall(r"\d+", order)]
    ratios = [sums.ratio(Plan((block,))) for block in blocks]
    assert ratios == sorted(ratios, reverse=True) and len(blocks) == sums.n_blocks
    assert (">" in order) == (len(sums.run.targets()) >= 50)


def test_what_is_to_be_avoided_is_as_bad_as_is_said(told):
    _, sums, sections = told
    for blocks, sizes, factor in said(
        sections,
        r"o not remove ([^:]*): every measured set of ([\d to,or]+) blocks .* least ([\d.]+) times",
    ):
        numbers = [int(number) for number in re.findall(r"\d+", sizes)]
        sizes = range(numbers[0], numbers[-1] + 1)
        for block in map(int, re.findall(r"block (\d+)", blocks)):
            for size in sizes:
                best, *others = sums.of_size(size)
                with_block = [plan for plan in (best, *others) if block in plan.removed]
                assert with_block and all(
                    sums.ratio(plan, sums.chosen_on) / sums.ratio(best, sums.chosen_on)
                    >= float(factor)
                    for plan in with_block
                )


def test_shapley_values_are_averages_over_all_orders(told):
    run, sums, sections = told
    if "Shapley" not in sections["importance"].table.headings:
        count, every = said(sections, r"since (\d+) of (\d+) sets of blocks were")[0]
        assert (int(count), int(every)) == (len(run.plans), 2**run.n_blocks)
        return
    from itertools import permutations

    orders = list(permutations(range(run.n_blocks)))
    values = np.zeros(run.n_blocks)
    log_ppl = {plan: nats / sums.tokens["reported"] for plan, nats in sums.nats["reported"].items()}
    for order in orders:
        for at, block in enumerate(order):
            before, after = (Plan(tuple(sorted(order[:end]))) for end in (at, at + 1))
            values[block] += (log_ppl[after] - log_ppl[before]) / len(orders)
    at = sections["importance"].table.headings.index("Shapley")
    shown = [float(row[at]) for row in sections["importance"].table.rows]
    assert shown == pytest.approx(values, abs=6e-4)


def test_pairs_add_up_as_is_said(told):
    run, sums, sections = told
    log = {plan: math.log(sums.ratio(plan)) for plan in sums.plans}
    for side, name, nats, cost in said(
        sections, rf"Farthest (above|below) it: {SETS}, by ([\d.]+).*\({CHANGE}\)"
    ):
        plan = Plan.parse(name)
        excess = log[plan] - sum(log[Plan((block,))] for block in plan.removed)
        assert (excess > 0) == (side == "above")
        assert float(nats) == pytest.approx(abs(excess), abs=6e-4)
        assert as_ratio(cost) == pytest.approx(math.exp(excess), rel=2e-3)
    if len(run.targets()) < 50:
        assert said(sections, r"None of the \d+ pairs? was tested")


def test_further_blocks_and_strategies_cost_what_is_said(told):
    run, sums, sections = told
    best = [sums.of_size(size)[0] for size in range(run.n_blocks) if sums.of_size(size)]
    for costs in said(sections, r"A further block costs: (.*)\."):
        steps = re.findall(rf"\d: {CHANGE}", costs)
        for step, before, after in zip(steps, best, best[1:], strict=False):
            assert step == change(sums.ratio(after) / sums.ratio(before))
    for names, count, n_sizes, at, gap in said(
        sections,
        rf"Best fixed strategy: ([a-z, ]+), at (\d+) of (\d+) sizes.*; at (\d) .* than {CHANGE}",
    ):
        ratio = {
            (name, size): sums.ratio(
                strategy_plan(name, run.n_blocks, size, run.facts.proposal.seed), sums.chosen_on
            )
            for name in STRATEGIES
            for size in range(1, run.n_blocks)
        }
        least = {
            size: min(ratio[name, size] for name in STRATEGIES) for size in range(1, run.n_blocks)
        }
        wins = {
            name: sum(ratio[name, size] == least[size] for size in least) for name in STRATEGIES
        }
        assert int(n_sizes) == len(least) and int(count) == max(wins.values())
        winners = [name for name in STRATEGIES if wins[name] == int(count)]
        assert re.findall(r"[a-z]+", names.replace(" and ", ", ")) == winners
        gaps = {
            size: least[size] / sums.ratio(sums.of_size(size)[0], sums.chosen_on) for size in least
        }
        assert gap == change(max(gaps.values())) and gaps[int(at)] == max(gaps.values())


def test_what_both_texts_say_is_what_their_sums_say(told):
    run, sums, sections = told
    if sums.chosen_on == "reported":
        assert not said(sections, "both texts")
        return
    sizes = [size for size in range(1, run.n_blocks) if len(sums.of_size(size)) > 1]
    chosen = {size: sums.of_size(size)[0] for size in sizes}
    lowest = {size: min(sums.of_size(size), key=sums.ratio) for size in sizes}
    missed = {size for size in sizes if chosen[size] != lowest[size]}
    named = "".join(said(sections, r"the chosen one is lowest, by blocks removed: (.*)\."))
    assert bool(missed) == bool(named) != bool(said(sections, "The same sets are best on both"))
    assert {int(size) for size in re.findall(r"(\d+): ", named)} == missed
    for size, name, gain in re.findall(r"(\d+): ([\d+-]+) \(([^)]*)\)", named):
        assert Plan.parse(name) == lowest[int(size)]
        gained = sums.ratio(lowest[int(size)]) / sums.ratio(chosen[int(size)])
        assert as_ratio(gain) == pytest.approx(gained, abs=6e-5)


def test_further_texts_are_told_of_as_their_sums_are(told):
    run, sums, sections = told
    roles = run.facts.further_roles
    assert ("elsewhere" in sections) == bool(roles)
    if not roles:
        return
    table = sections["elsewhere"].table
    title = {"test": "reported", "novel.txt": "also-1", "letters-to-…e-comet.txt": "also-2"}
    title["WikiText-2 raw, test"] = "reported"
    assert len(table.rows) == 3 * (1 + 2 * 3)  # the whole model and two of each size
    for name, text, ppl, ratio, bounds, differs in table.rows:
        plan, role = Plan.parse(name), title[text]
        assert ppl == format_ppl(sums.ppl(plan, role))
        if plan == Plan():
            assert (ratio, bounds, differs) == ("", "", "")
            continue
        assert ratio == format_ratio(sums.ratio(plan, role))
        low, high = (float(end.replace(",", "")) for end in bounds.split(" to "))
        assert low < sums.ratio(plan, role) < high
        shift = math.log(sums.ratio(plan, role) / sums.ratio(plan))
        assert differs in ({"more", "unclear"} if shift > 0 else {"less", "unclear", ""})
        assert (differs == "") == (role == "reported")
        if abs(shift) > 0.02:  # five times what noise does
            assert differs != "unclear"
        elif abs(shift) < 0.005 and role != "reported":
            assert differs == "unclear"
    found = said(sections, rf"on (\S+) against .*: ({NAMED}) clearly more, ({NAMED}) clearly less")
    assert [text for text, *_ in found] == [
        "novel.txt",
        "letters-to-an-editor-in-the-year-of-the-comet.txt",
    ]
    for role, (_, more, less) in zip(roles, found, strict=True):
        shifts = [math.log(sums.ratio(plan, role) / sums.ratio(plan)) for plan in sums.plans[1:]]
        for side, text in ((1, more), (-1, less)):
            count = 0 if text == "none" else int(text.split(" ")[0])
            assert (
                sum(side * x > 0.02 for x in shifts) <= count <= sum(side * x > 0 for x in shifts)
            )
            if count:
                ends = re.findall(CHANGE, text.split(", by ")[1])
                beyond = [math.exp(x) for x in shifts if side * x > 0.02]
                assert min(map(as_ratio, ends)) <= min(beyond) + 0.006
                assert max(map(as_ratio, ends)) >= max(beyond) - 0.006
    taus = [float(tau) for tau in said(sections, r"Kendall's tau ([\d.]+) \(1 the same")]
    assert taus == [pytest.approx(tau_of(sums, role), abs=0.006) for role in roles]
    for size, name in re.findall(
        r"(\d): ([\d+-]+)", "".join(said(sections, r"another set is best, .*: (.*)\."))
    ):
        there = min(sums.of_size(int(size)), key=lambda plan: sums.ratio(plan, "also-2"))
        assert Plan.parse(name) == there != sums.of_size(int(size))[0]


NAMED = r"none|\d+ \([^)]*\)"


def tau_of(sums, role):
    """Kendall's tau, by counting pairs of plans."""
    pairs = list(combinations(sums.plans[1:], 2))
    signs = [
        np.sign(sums.ratio(a) - sums.ratio(b)) * np.sign(sums.ratio(a, role) - sums.ratio(b, role))
        for a, b in pairs
    ]
    return sum(signs) / len(pairs)


def test_what_bridging_changes_is_what_the_sums_say(told):
    run, sums, sections = told
    if not sums.bridged:
        assert "bridging" not in sections
        return
    cut, now = (
        {role: {p: nats / sums.tokens[role] for p, nats in by[role].items()} for role in run.roles}
        for by in (sums.as_cut, sums.nats)
    )
    here, whole = "reported", cut["reported"][Plan()]

    def taken_back(plan):
        return 1 - (now[here][plan] - whole) / (cut[here][plan] - whole)

    medians, taus, rows = [], [], []
    for size in range(1, run.n_blocks):
        plans = sorted(sums.of_size(size))
        medians.append(np.median([taken_back(plan) for plan in plans if plan in sums.bridged]))
        pairs = list(combinations(plans, 2))
        signs = [
            np.sign((cut[here][a] - cut[here][b]) * (now[here][a] - now[here][b])) for a, b in pairs
        ]
        taus.append(sum(signs) / len(signs))
        best, as_cut = (min(plans, key=of[sums.chosen_on].__getitem__) for of in (now, cut))
        rows.append((best.short, best, None))
        if as_cut != best:
            rows.append((f"{as_cut.short} †", as_cut, now[here][as_cut] - now[here][best]))
    regrets = [regret for _, _, regret in rows if regret is not None]
    assert regrets  # another set is chosen somewhere
    (found,) = said(sections, r"takes back \(median of .*\) (.*)\.")
    assert [int(n) for n in re.findall(r"(\d+) %", found)] == [round(100 * m) for m in medians]
    (found,) = said(sections, r"Order of the sets as cut and bridged.*removed: (.*)\. Rank")
    values = [float(v.replace("−", "-")) for v in re.findall(r"\d: (−?[\d.]+\d)", found)]
    assert values == pytest.approx(taus, abs=0.006)
    table = sections["bridging"].table
    assert [row[0] for row in table.rows] == [name for name, _, _ in rows]
    for cells, (_, plan, regret) in zip(table.rows, rows, strict=True):
        _, as_cut, bridged, share, ratio, bounds = cells
        assert as_cut == format_ppl(math.exp(cut[here][plan]))
        assert bridged == format_ppl(math.exp(now[here][plan]))
        assert share == f"{100 * taken_back(plan):.0f} %"
        assert ratio == ("" if regret is None else format_ratio(math.exp(regret)))
        if regret is not None:
            low, high = map(float, bounds.split(" to "))
            assert low < math.exp(regret) < high
    pattern = rf"another set is taken at (\d+) of (\d+) sizes, for {CHANGE} perplexity at most"
    ((others, n_sizes, most),) = said(sections, pattern)
    assert (int(others), int(n_sizes)) == (len(regrets), run.n_blocks - 1)
    assert most == change(math.exp(max(regrets)))


def test_ranks_of_blocks_are_their_places_by_either_cost(told):
    run, sums, sections = told
    table = sections["importance"].table
    if not sums.bridged:
        assert "Rank" not in table.headings
        return
    alone = [Plan((block,)) for block in range(run.n_blocks)]
    for first, nats in ((1, sums.as_cut["reported"]), (3, sums.nats["reported"])):
        order = sorted(alone, key=nats.__getitem__)
        for block, cells in enumerate(table.rows):
            assert cells[first + 1] == str(1 + order.index(Plan((block,))))
            ppl = format_ppl(math.exp(nats[Plan((block,))] / sums.tokens["reported"]))
            assert cells[first] == (ppl if first == 1 or block else "")


@pytest.mark.parametrize("form", ["terminal", "md"])
def test_every_format_holds_every_sentence(told, form):
    run, _, sections = told
    text = " ".join(formats.render(run, form).split()).replace("\\", "")
    for section in sections.values():
        for sentence in section.sentences:
            assert sentence.replace("\\", "") in text
