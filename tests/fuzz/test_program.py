"""A program is a value: its text says all of it, and errors are one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpvm.explore.registry import find
from smpvm.fuzz.generate import Maker, generate, legal
from smpvm.fuzz.program import ProgramError, parse
from smpvm.fuzz.shape import Op, Program, Region, Start, ThreadOf

EXAMPLE = (
    "start: x anon 2 inactive cow; swap full; sysctl max_launder=1 | "
    "a: fork write x+1; msync x+0 invalidate | b: read x+1 | pageout: inactive 1; round"
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 40), st.integers(1, 12))
def test_what_is_generated_is_read_back(seed, size):
    program = generate(seed, size)
    assert legal(program)
    assert parse(program.text) == program
    assert generate(seed, size) == program


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_changes_and_crossings_are_legal_and_read_back(rng):
    maker = Maker(rng)
    one, other = maker.program(4), maker.program(4)
    for made in (maker.mutate(one), maker.cross(one, other), maker.mutate(maker.cross(other, one))):
        assert legal(made)
        assert parse(made.text) == made


def test_the_text_says_all_of_it():
    program = parse(EXAMPLE)
    assert program == Program(
        Start(
            (Region("x", "anon", 2, "inactive", "cow"),),
            swap_full=True,
            sysctls=(("max_launder", 1),),
        ),
        (
            ThreadOf(
                "a",
                (Op("fork", child=Op("write", "x", 1)), Op("msync", "x", 0, "invalidate")),
            ),
            ThreadOf("b", (Op("read", "x", 1),)),
            ThreadOf("pageout", (Op("inactive", word="1"), Op("round"))),
        ),
    )
    assert program.text == EXAMPLE
    assert parse(EXAMPLE.replace("; ", " ;  ").replace(" | ", "|")) == program


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write it as thread: operation"),
        ("a read", "write it as thread: operation"),
        ("start: x anon 1 resident", "no thread"),
        ("a:", "a: no operation"),
        ("q: read x+0", "thread q: allowed are"),
        ("a: fly", "fly: unknown; known are"),
        ("a: read", "a region is wanted"),
        ("start: x anon 1 resident | a: read x", "a page is wanted, as in x+0"),
        ("start: x anon 1 resident | a: read x+1", "x has 1 pages"),
        ("start: x anon 1 resident | a: read x+0 twice", "twice is too much"),
        ("start: x anon 1 resident | a: mprotect x", "a word is wanted: none, read, rw"),
        ("start: x anon 1 resident | b: read x+0", "process b does not have x"),
        ("start: x anon 1 resident | a: fsync x", "x is no file"),
        ("start: x anon 9 resident | a: wait", "out of range, allowed 1 to 4"),
        ("start: x paper 1 resident | a: wait", "kind paper: known are"),
        ("start: x anon 1 resident; x anon 1 resident | a: wait", "two regions have one name"),
        ("start: x file 1 resident | a: wait", "files are f and g"),
        ("start: colours 3 | a: wait", "out of range, allowed (1, 2, 4)"),
        ("start: moon full | a: wait", "allowed are a region"),
        ("start: sysctl nonsense=1 | a: wait", "sysctl nonsense: unknown"),
        ("a: wait | a: wait", "two threads have one name"),
        ("a: inactive", "only for kernel threads"),
        ("kernel: inactive", "only for the thread pageout"),
        ("pageout: fork", "only for threads of processes"),
        ("a: exec | a2: wait", "its process has several threads"),
        ("a: kill d", "there is no such process"),
        ("a: fork fork", "a child does not fork"),
        ("start: memory low | a: wait", "daemon pagedaemon is wanted"),
        ("start: daemon vmdaemon | vmdaemon: limits", "is a whole daemon already"),
        ("a: " + "wait; " * 13 + "wait", "more than 12 operations"),
        ("a: " + "x" * 3000, "longer than 2000 characters"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(text, words):
    with pytest.raises(ProgramError) as refused:
        parse(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(ProgramError):
        find(f"fuzz:{text}")
