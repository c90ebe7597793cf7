"""Text from outside: shown whole, obeyed by nothing."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_kit.printable import copyable, markdown_text, printable, quoted

HOSTILE = "m\x1b]0;x\x07\r\x9b2J\u202eevil\n\u2028\udcff`a|b` [v2] 'q'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("saved[v2] :smile: été 模型", "saved[v2] :smile: été 模型"),
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        ("a\nb\tc\rd\x7f", r"a\x0ab\x09c\x0dd\x7f"),
        ("\x9b2J\x85", r"\u009b2J\u0085"),
        ("\u202eevil\u2066\ufeff", r"\u202eevil\u2066\ufeff"),
        ("caf\udce9", r"caf\xe9"),  # a byte that is no UTF-8
        ("\U000e0041", r"\U000e0041"),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_what_a_terminal_obeys_is_shown_as_its_escape(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_lines_are_kept_where_a_text_has_lines():
    assert printable("one\ntwo\x1b", keep="\n") == "one\ntwo\\x1b"


@pytest.mark.parametrize("word", ["saved[v2]", "a b", "it's \x1b\\n", "a\nb", HOSTILE, "$'x'\x07"])
def test_a_quoted_word_is_on_one_line_and_reaches_a_program_as_it_was(word):
    said = quoted(word)
    assert printable(said) == said
    script = f"printf %s {said}".encode(errors="surrogateescape")
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True)
    assert done.stdout.decode(errors="surrogateescape") == word


def test_a_command_is_copied_as_typed_where_all_of_it_can_be_shown():
    assert copyable("kit --model 'a b[v2]'") == "kit --model 'a b[v2]'"
    assert copyable("kit --model 'a\x1b b'") == r"kit --model $'a\x1b b'"
    assert copyable("kit 'a\x1b") == r"kit 'a\x1b"  # an odd quote


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a_b *c* <i> [l](x) &lt;", r"a\_b \*c\* \<i> [l\](x) \&lt;"),
        ("`kit --save_results` of <b>", r"`kit --save_results` of \<b>"),
        ("``<script>`", r"``\<script>`"),  # no code span: the backticks do not pair
        ("``a`<b>``", "``a`<b>``"),
        ("a\n---\n# b", r"a\\x0a---\\x0a# b"),
    ],
)
def test_markdown_reads_nothing_in_a_name(text, written):
    assert markdown_text(text) == written


@given(st.text())
def test_whatever_the_text_nothing_hidden_is_left(text):
    shown = printable(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in shown)
    assert printable(shown) == shown
