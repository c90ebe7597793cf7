"""Reports: the same facts in every format, nothing from outside read as markup."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from pruning_kit.cli.console import Console
from pruning_kit.errors import RunError
from pruning_kit.findings.analysis import analyse
from pruning_kit.findings.budgets import Budget
from pruning_kit.plans.permutations import shapley_plans
from pruning_kit.plans.plan import Plan
from pruning_kit.plans.sets import singles
from pruning_kit.reporting import formats, page
from pruning_kit.reporting.blocks import blocks_table
from pruning_kit.reporting.contents import build_document, notes
from pruning_kit.reporting.document import Document, Section, Table
from pruning_kit.reporting.notebook import show
from pruning_kit.reporting.tables import sizes_table, strategies_table
from pruning_kit.runs.results import load_run
from pruning_kit.speed.stored_timings import from_json, to_json
from tests.goldens import make
from tests.synthetic_runs import synthetic_timings, write_run

FEW = [Plan(), *singles(6), Plan((1, 3)), Plan((2, 3))]
HOSTILE = "</script><script>alert(1)</script> [link](x) a|b *c* _d_"
KINDS = {
    "all plans": {},
    "two texts": {"selection": True},
    "chosen plans": {"plans": FEW},
    "sequential": {"plans": [Plan(), *singles(6)], "timed": False},
    "baseline only": {"plans": [Plan()], "timed": False},
    "baseline only, timed": {"plans": [Plan()]},
    "some failed": {"plans": FEW, "failed": [Plan((0,)), Plan((1, 3))]},
    "whole model failed": {"plans": FEW, "failed": [Plan()], "timed": False},
    "all failed": {"plans": FEW, "failed": FEW, "timed": False},
    "few windows": {"plans": FEW, "n_windows": 20},
    "one block": {"n_blocks": 1},
    "exploding": {"plans": FEW, "cost": lambda plan: 9.0 * plan.size},
    "beyond float64": {"plans": FEW, "cost": lambda plan: 800.0 * plan.size},
    "hostile names": {
        "plans": FEW,
        "model": HOSTILE,
        "changes": {"texts.reported.title": HOSTILE},
    },
}


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    runs = {}

    def get(kind):
        if kind not in runs:
            folder = tmp_path_factory.mktemp("run") / "run"
            runs[kind] = load_run(write_run(folder, **KINDS[kind]))
        return runs[kind]

    return get


DOCUMENT = Document(
    "Removing blocks from a_model",
    "a text, 3 plans",
    ("Only a part was scored.",),
    (
        Section(
            "summary",
            "In short",
            (
                "Block 0 [matters] most; a long sentence goes on and is wrapped where the eighty "
                "columns of the terminal end.",
                "`pruning-kit sweep` measures <more> of a|b.",
            ),
            Table(
                ("Removed", "PPL", "Change"),
                (("none", "27.70", ""), ("1+3 *", "50.10", "+80.9 %")),
                "* recommended",
                (1,),
            ),
        ),
        Section("facts", "How", (), Table(("", ""), (("Model", "a|b"),)), code="kit --remove 1+3"),
    ),
)

TERMINAL = """\
Removing blocks from a_model
a text, 3 plans
Note: Only a part was scored.

In short
- Block 0 [matters] most; a long sentence goes on and is wrapped where the
  eighty columns of the terminal end.
- `pruning-kit sweep` measures <more> of a|b.

Removed    PPL   Change
───────────────────────
none     27.70
1+3 *    50.10  +80.9 %
* recommended

How
Model  a|b
  kit --remove 1+3
"""

MARKDOWN = """\
# Removing blocks from a\\_model

a text, 3 plans

> **Note:** Only a part was scored.

## In short

- Block 0 [matters] most; a long sentence goes on and is wrapped where the eighty columns of \
the terminal end.
- `pruning-kit sweep` measures \\<more> of a|b.

| Removed | PPL | Change |
|---|---:|---:|
| none | 27.70 |  |
| **1+3 \\*** | **50.10** | **+80.9 %** |

\\* recommended

## How

|  |  |
|---|---|
| Model | a\\|b |

    kit --remove 1+3
"""


def test_a_document_on_the_terminal_word_for_word():
    assert formats.plain_text(DOCUMENT) == TERMINAL


def test_a_document_as_markdown_word_for_word():
    assert formats.markdown(DOCUMENT) == MARKDOWN


DRAWN = ["baseline only", "whole model failed", "few windows", "one block", "beyond float64"]


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        *((kind, form) for kind in KINDS for form in ("terminal", "md")),
        *((kind, "html") for kind in DRAWN),
    ],
)
def test_every_kind_of_run_has_a_report_in_every_format(run_of, kind, form):
    text = formats.render(run_of(kind), form)
    assert "In short" in text and "nan" not in re.sub(r"base64,[\w+/=]+", "", text).lower().split()
    if form == "terminal":
        lines = [line for line in text.splitlines() if "pruning-kit" not in line]
        assert max(map(len, lines)) <= formats.TERMINAL_WIDTH


@pytest.mark.parametrize("name", make.FORMATS)
def test_the_report_of_a_whole_run_word_for_word(tmp_path, name):
    """The stored files and how to write them anew: goldens/make.py."""
    assert make.report_of_a_run(tmp_path, name) == make.stored(name)


def test_no_sentence_stands_twice(run_of):
    run = run_of("all plans")
    sections = build_document(run, analyse(run)).sections
    sentences = [sentence for section in sections for sentence in section.sentences]
    assert len(sentences) == len(set(sentences))


def test_the_table_of_sizes_holds_the_best_set_of_each_and_stars_the_recommended(run_of):
    run = run_of("all plans")
    analysis = analyse(run)
    table = sizes_table(analysis)
    names = [row[0].removesuffix(" *") for row in table.rows]
    assert names == ["none", *(size.best.short for size in analysis.sizes)]
    starred = [row[0] for row in table.rows if row[0].endswith("*")]
    assert (
        starred == [f"{analysis.recommended.short} *"]
        and table.rows[table.bold[0]][0] == starred[0]
    )
    assert table.headings == (
        "Removed", "PPL", "Ratio", "95 % interval", "Params", "ms", "Ratio"
    )  # fmt: skip
    params, milliseconds, ratio = table.rows[1][4:]
    assert params == "74.82"
    assert float(ratio) == pytest.approx(0.3 + 0.7 * 5 / 6, abs=0.02)
    value, off = map(float, milliseconds.split(" ± "))
    assert value == pytest.approx(400 * float(ratio), rel=0.02) and 0 < off < 0.05 * value


def test_a_speed_within_the_noise_is_called_unclear(tmp_path):
    timings = synthetic_timings(FEW, 6)
    data = json.loads(json.dumps(to_json(timings)))
    for turn in data["rounds"]:
        for values in turn["samples"].values():
            values[2:] = [values[0] * (1 + 0.01 * (turn["order"][0] % 2))] * len(values[2:])
            values[1] = values[0] * 1.05
    run = load_run(write_run(tmp_path / "run", plans=FEW, timings=from_json(data)))
    table = sizes_table(analyse(run))
    assert [row[-1] == "unclear" for row in table.rows] == [False, True, True]
    assert table.caption.endswith("unclear: within the noise.")


def test_the_table_of_blocks_has_every_block_and_its_shapley_value(run_of):
    table = blocks_table(analyse(run_of("all plans")))
    assert [row[0] for row in table.rows] == list("012345") and len(table.headings) == 6
    table = blocks_table(analyse(run_of("sequential")))
    assert len(table.headings) == 4 and table.rows[0][2] == "20.07"


def test_the_table_of_strategies_compares_with_the_best_set(run_of):
    table = strategies_table(analyse(run_of("all plans")))
    for row in table.rows:
        best, median, worst, *strategies = (float(cell.replace(",", "")) for cell in row[1:])
        assert best <= median <= worst
        assert all(best <= value <= worst for value in strategies)
    partly = strategies_table(analyse(run_of("chosen plans")))
    assert partly.rows[1][0] == "2 (2 of 15 sets)"


def test_kl_and_agreement_stand_in_the_table_of_sizes_and_in_the_page(tmp_path):
    run = load_run(write_run(tmp_path / "run", plans=FEW, comparing=True))
    table = sizes_table(analyse(run))
    frame = run.frame().set_index("removed")
    assert table.headings[4:6] == ("KL", "Agree") and table.rows[0][4:6] == ("0.000", "1.000")
    kl, agree = frame.loc["1+3", ["kl_nats", "agreement"]]
    assert table.rows[2][4:6] == (f"{kl:.3f}", f"{agree:.3f}")
    data = page_data(formats.render(run, "html"))
    at = data["plans"]["name"].index("1+3")
    assert data["compared"] and data["plans"]["kl"][at] == pytest.approx(kl, rel=1e-5)
    row = analyse(run).row[Plan((1, 3))]
    assert data["plans"]["klText"][at] == f"{kl:.3g} ± {row.kl.high - row.kl.value:.3g}"
    text = data["plans"]["agreementText"][at]
    assert text == f"{100 * agree:.1f} % ± {100 * (row.agreement.high - row.agreement.value):.1f} %"


def test_a_budget_gets_a_section_with_the_command_that_makes_the_model(run_of):
    run = run_of("all plans")
    text = formats.render(run, "terminal", Budget(max_params=70_000_000))
    assert "With at most 70,000,000 parameters: remove blocks 1+3" in text
    assert "pruning-kit prune --model distilgpt2 --remove 1+3 --out pruned-1+3" in text


def test_a_budget_that_nothing_meets_says_why(run_of):
    text = formats.render(run_of("all plans"), "md", Budget(max_params=1_000))
    assert "No choice: none of the 63 measured models keeps to at most 1,000 parameters." in text
    assert "Nearest: without blocks 1-5 (perplexity " in text
    limits = Budget(max_params=50_000_000, max_ppl_increase_pct=10)
    text = formats.render(run_of("all plans"), "md", limits)
    assert "At most 50,000,000 parameters alone: remove blocks " in text
    assert "At most 10 % more perplexity alone: keep the whole model (perplexity " in text


def test_a_limit_on_perplexity_is_judged_on_the_text_chosen_on_and_says_so(tmp_path):
    run = load_run(write_run(tmp_path / "run", selection=True))
    text = formats.render(run, "md", Budget(max_ppl_increase_pct=1))
    assert (
        "With at most 1 % more perplexity (on valid): keep the whole model, perplexity 27.70, "
        "81.91 M parameters, 401 ms (chosen on valid, reported on test)."
    ) in text
    assert "- Block 3, the cheapest to remove, would cost +32." in text


def test_a_latency_budget_without_timings_is_refused(run_of):
    with pytest.raises(RunError, match="cannot choose a model of at most 50 ms"):
        formats.render(run_of("sequential"), "terminal", Budget(max_latency_s=0.05))


def test_notes_tell_what_was_substituted_and_what_was_left_out(tmp_path, run_of):
    assert notes(run_of("all plans")) == []
    changes = {
        "model.note": "distilgpt2 is not in the local cache",
        "texts.reported.part": "first 8 of 561 windows",
    }
    run = load_run(write_run(tmp_path / "run", plans=FEW, model="demo", changes=changes))
    assert notes(run) == [
        "These figures are those of the kit's small embedded demo model (trained on English books, "
        "other novels by Jane Austen among them), not of distilgpt2 (distilgpt2 is not in the "
        "local cache).",
        "Preliminary figures: WikiText-2 raw, test, first 8 of 561 windows.",
    ]


def test_doubts_about_the_timing_are_named_at_the_top_and_counted(tmp_path, run_of):
    timings = synthetic_timings(FEW, 6, n_rounds=7)
    folder = write_run(tmp_path / "run", plans=FEW, timings=timings)
    text = " ".join(formats.render(load_run(folder)).split())
    assert "The timings are doubtful for 1 reason: see How fast." in text
    assert "How fast - Doubtful: the budget of 15 s ended after 7 rounds" in text
    quiet = formats.render(run_of("all plans"))
    assert "doubtful" not in quiet and "Doubtful" not in quiet


def test_timings_that_cannot_be_read_leave_a_report_and_are_said(tmp_path):
    folder = write_run(tmp_path / "run", plans=FEW)
    (folder / "latency.json").write_text("[")
    text = formats.render(load_run(folder), "md")
    assert "> **Note:** Speeds are left out, because the kit cannot read " in text
    assert "- The timings are left out: see the note at the top." in text
    assert " ms" not in text


def test_a_commit_with_changes_says_so(tmp_path):
    changes = {"git_commit": "0123abcd+"}
    run = load_run(write_run(tmp_path / "run", plans=FEW, changes=changes))
    assert ", commit 0123abcd with uncommitted changes |" in formats.render(run, "md")


def page_data(text):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.S)[1])


def test_the_page_holds_every_plan_as_numbers_and_as_text(run_of):
    run = run_of("some failed")
    data = page_data(formats.render(run, "html"))
    columns = data["plans"]
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    plans = {row["name"]: row for row in rows}
    assert set(plans) == {str(plan) for plan in FEW}
    assert plans["0"]["ppl"] is None and plans["0"]["pplText"] == "failed"
    frame = run.frame().set_index("removed")
    assert plans["2+3"]["ppl"] == pytest.approx(frame.loc["2+3", "ppl"], rel=1e-5)
    value, off = map(float, plans["2+3"]["latencyText"].split(" ± "))
    ratio = run.timings.summary(Plan((2, 3))).end_to_end_s.ratio
    assert plans["none"]["latencyText"] == f"{plans['none']['latency']:.3g}"
    assert 1 + off / value == pytest.approx(ratio.high / ratio.value, rel=0.001)
    assert data["timed"] and all(c.endswith(" --out pruned-PLAN") for c in data["commands"])


@pytest.mark.parametrize("kind", ["all plans", "hostile names"])
def test_the_page_asks_for_nothing_and_says_so_to_the_browser(run_of, kind):
    text = formats.render(run_of(kind), "html")
    assert "default-src 'none'" in text
    assert "How they write" not in text
    outside = re.findall(r'(?:src|href)\s*=\s*["\']?([^"\'\s>]+)', text)
    assert all(address.startswith(("data:image/svg+xml", "#")) for address in outside)


def test_names_from_outside_are_text_in_the_page(run_of):
    text = formats.render(run_of("hostile names"), "html")
    assert "<script>alert(1)" not in text
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in text
    assert "alert(1)" in page_data(text)["commands"][0]


def test_names_from_outside_are_text_in_markdown_and_on_the_terminal(run_of):
    text = formats.render(run_of("hostile names"), "md")
    assert "[link\\](x)" in text and "\\<script>" in text and "\\*c\\*" in text
    assert all(row.count(" | ") == 1 for row in text.splitlines() if row.startswith("| Model"))
    assert "[link](x)" in formats.render(run_of("hostile names"), "terminal")


def test_samples_stand_beside_each_other_the_whole_model_first(tmp_path):
    samples = {Plan((1, 3)): "Once <b>upon</b>\n\n\n", Plan(): "It is a truth"}
    run = load_run(write_run(tmp_path / "run", plans=FEW, samples=samples))
    text = formats.render(run, "html")
    assert text.index("It is a truth") < text.index("Once &lt;b&gt;upon&lt;/b&gt;</blockquote>")
    assert "How they write" in text


def test_numbers_in_the_page_are_six_digits_or_null():
    assert page._rounded(1234.56789) == 1234.57
    assert page._rounded(float("inf")) is None and page._rounded(None) is None
    assert page._rounded(np.float64(0.1) + 0.2) == 0.3


def test_a_report_is_written_whole_and_leaves_nothing_else(tmp_path, run_of):
    path = formats.write_report(run_of("sequential"), tmp_path / "report.md", "md")
    assert path.read_text().startswith("# Removing blocks from distilgpt2")
    assert [file.name for file in tmp_path.iterdir()] == ["report.md"]


def test_the_console_report_says_the_same_as_the_text(run_of):
    run = run_of("two texts")
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.show(formats.terminal_report(run, analyse(run)))
    assert [line.rstrip() for line in captured.get().splitlines()] == formats.render(
        run
    ).splitlines()


def test_a_notebook_shows_the_summary_with_names_escaped(run_of):
    html = show(run_of("hostile names"))._repr_html_()
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert "<td>1+3" in show(run_of("all plans"))._repr_html_()


def test_a_summary_is_plain_text_elsewhere(run_of):
    text = str(show(run_of("all plans")))
    assert text.startswith("Removing blocks from distilgpt2\nThe whole model and 62 sets of blocks")
    assert repr(show(run_of("all plans"))) == text and "<" not in text


def test_reports_import_no_torch():
    reporting = "pruning_kit.reporting.formats, pruning_kit.reporting.comparison"
    modules = f"{reporting}, pruning_kit.findings.published"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("form", ["terminal", "md"])
def test_sets_of_deep_models_are_named_with_ranges_and_never_cut(tmp_path, form):
    sets = [Plan(tuple(range(5, 29))), Plan(tuple(range(1, 47, 2))), Plan((4, 5, 6, 7))]
    costs = {plan: 0.02 * plan.size for plan in sets}
    run = load_run(
        write_run(
            tmp_path / "run",
            48,
            [Plan(), *singles(48), *sets],
            cost=lambda plan: costs.get(plan, 0.3 * plan.size),
        )
    )
    text = formats.render(run, form)
    triples = [found[0] for found in re.finditer(r"(?:\d+\+){2}\d+", text)]
    assert triples
    for blocks in (Plan.parse(triple).removed for triple in triples):
        assert blocks[2] - blocks[0] > 2
    assert "4-7" in text and "5-28" in text
    assert "--remove 4-7 --out pruned-4-7" in text
    if form == "terminal":
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80


def test_tables_of_deep_models_end_where_even_the_best_set_collapses(tmp_path):
    run = load_run(write_run(tmp_path / "run", 24, shapley_plans(24, 8), n_windows=60))
    analysis = analyse(run)
    table = sizes_table(analysis)
    last = analysis.row[Plan.parse(table.rows[-1][0])]
    assert last.selection_ratio <= 10 and len(analysis.sizes) == 23
    left_out = 23 - (len(table.rows) - 1)
    assert f"Left out here are {left_out} larger sizes." in table.caption
    assert len(strategies_table(analysis).rows) == len(table.rows) - 1
    assert "Left out" not in sizes_table(analyse(load_run(write_run(tmp_path / "six", 6)))).caption
