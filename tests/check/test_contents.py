"""Contents: what must be read, and what is reported if something else is."""

from smpvm.check.contents import Contents, PageHistory, page_number, show_value
from smpvm.check.finding import FindingLog
from smpvm.kern.thread import Thread


def make() -> tuple[Contents, FindingLog, Thread]:
    log = FindingLog()
    return Contents(log), log, Thread(1, "cpu0", lambda: None, role="process")


def test_values_never_repeat() -> None:
    contents, _, _ = make()
    a, b = contents.ledger(1), contents.ledger(2)
    values = [a.fresh() for _ in range(100)] + [b.fresh() for _ in range(100)]
    assert len(set(values)) == 200
    assert show_value(values[0]) == "process 1 write 1"


def test_the_last_value_is_right_and_an_old_one_is_not() -> None:
    contents, log, td = make()
    ledger = contents.ledger(7)
    old, new = ledger.fresh(), ledger.fresh()
    ledger.wrote(0x1000, old)
    assert ledger.check(td, 0x1000, old)
    ledger.wrote(0x1000, new)
    assert not ledger.check(td, 0x1000, old, lambda addr: "page 12")
    assert log.kinds() == ["stale-data"]
    text = "\n".join(log.findings[0].lines())
    assert "page 12" in text
    assert "process 7 write 1" in text
    assert "expected: process 7 write 2" in text
    assert contents.line() == "contents: 2 words checked, 1 lost"


def test_zero_where_something_was_written_is_lost() -> None:
    contents, log, td = make()
    ledger = contents.ledger(7)
    ledger.wrote(8, ledger.fresh())
    assert not ledger.check(td, 8, 0)
    ledger.wrote(16, ledger.fresh())
    assert not ledger.check(td, 16, 0)
    assert len(log) == 1, "one defect, seen twice"
    assert log.findings[0].count == 2
    assert contents.lost == 2


def test_a_word_that_nobody_wrote_is_nobodys_business() -> None:
    contents, log, td = make()
    assert contents.ledger(1).check(td, 8, 12345)
    assert not log
    assert contents.checked == 0


def test_a_child_must_read_what_its_parent_wrote_before_the_fork() -> None:
    contents, log, td = make()
    parent = contents.ledger(1)
    before = parent.fresh()
    parent.wrote(8, before)
    child = parent.fork(2)
    parent.wrote(8, parent.fresh())
    assert child.check(td, 8, before)
    assert not parent.check(td, 8, before)
    assert log.kinds() == ["stale-data"]


def test_an_unfinished_write_and_freed_memory_may_be_either_and_then_only_that() -> None:
    contents, log, td = make()
    ledger = contents.ledger(1)
    old, new = ledger.fresh(), ledger.fresh()
    ledger.wrote(8, old)
    ledger.maybe(8, new)
    assert ledger.check(td, 8, new)
    assert not ledger.check(td, 8, old)
    ledger.wrote(4096, old)
    ledger.freed(4096, 8192)
    assert ledger.check(td, 4096, 0)
    assert not ledger.check(td, 4096, old)
    assert log.findings[0].count == 2


def test_unmapped_words_are_forgotten_and_fresh_ones_are_zero() -> None:
    contents, _, td = make()
    ledger = contents.ledger(1)
    ledger.wrote(8, ledger.fresh())
    ledger.wrote(4096, ledger.fresh())
    ledger.forget(0, 4096)
    ledger.zeroed(4096, 8192)
    assert ledger.words == {4096: (0,)}
    assert ledger.check(td, 4096, 0)


def test_readers_of_a_shared_word_accept_what_the_owner_is_writing_and_nothing_older() -> None:
    contents, log, td = make()
    words = contents.file("f")
    reader = contents.ledger(2)
    assert words.check(td, reader, 5, 0, "anything"), "not a word of the file yet"
    first = words.made(5)
    assert words.check(td, reader, 5, words.before_read(5), first)
    value = words.begin(5)
    before = words.before_read(5)
    assert words.check(td, reader, 5, before, first)
    assert words.check(td, reader, 5, before, value)
    words.end(5)
    assert words.check(td, reader, 5, before, first), "the read began before the write was done"
    assert not words.check(td, reader, 5, words.before_read(5), first)
    assert not words.check(td, reader, 5, before, words.value(6, 1)), "another word's value"
    assert not words.check(td, reader, 5, before, words.value(5, 2)), "a value from the future"
    assert log.kinds() == ["stale-data"]


def test_counts_outlive_their_ledgers() -> None:
    contents, _, td = make()
    ledger = contents.ledger(1)
    ledger.wrote(8, 3)
    ledger.check(td, 8, 3)
    ledger.close()
    assert contents.checked == 1


def test_history_is_bounded_and_told() -> None:
    class M:
        idx = 3

    history = PageHistory(depth=2)
    td = Thread(1, "pagedaemon", lambda: None)
    for event in (history.page_alloc, history.page_busied, history.page_free):
        event(td, M())
    assert history.lines(3) == ["page 3: busied by pagedaemon", "page 3: freed by pagedaemon"]
    assert history.lines(4) == []
    log = FindingLog()
    contents = Contents(log, history)
    ledger = contents.ledger(1)
    ledger.wrote(8, 5)
    ledger.check(td, 8, 0, lambda addr: "page 3")
    assert "page 3: freed by pagedaemon" in log.findings[0].evidence


def test_page_number() -> None:
    assert page_number("page 12") == 12
    assert page_number("") is None
