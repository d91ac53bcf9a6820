"""Standard output does not fail if a pipe is closed or a disk is full."""

import errno
import io
import sys

import pytest

from smpvm.report.output import Output, complain, printing, reader_gone


class Broken(io.StringIO):
    """Takes *room* lines, and fails with *error* from then on."""

    def __init__(self, error, room=0):
        super().__init__()
        self.error = error
        self.room = room

    def write(self, text):
        if self.room == 0:
            raise OSError(self.error, "broken")
        self.room -= 1
        return super().write(text)


def test_lines_pass_at_once_and_parts_of_lines_wait():
    stream = io.StringIO()
    out = Output(stream)
    print("a", end="", file=out)
    assert stream.getvalue() == ""
    print("b", file=out)
    assert stream.getvalue() == "ab\n"
    print("c", end="", file=out)
    out.flush()
    assert stream.getvalue() == "ab\nc"


def test_a_closed_pipe_ends_the_printing_and_says_so(capsys, monkeypatch):
    stream = Broken(errno.EPIPE, room=1)
    monkeypatch.setattr(sys, "stdout", stream)
    with printing():
        print("read")
        assert not reader_gone()
        print("lost")
        assert reader_gone()
        print("lost, too")
    assert stream.getvalue() == "read\n"
    assert capsys.readouterr().err == ""
    assert sys.stdout is stream


def test_what_does_not_fit_on_the_disk_goes_to_standard_error(capsys, monkeypatch):
    stream = Broken(errno.ENOSPC, room=1)
    monkeypatch.setattr(sys, "stdout", stream)
    with printing():
        print("fits")
        print("the report")
        print("goes on")
        assert not reader_gone()
    assert stream.getvalue() == "fits\n"
    err = capsys.readouterr().err
    assert err == "smpvm: standard output: broken; see below\nthe report\ngoes on\n"


def test_if_both_fail_nothing_is_raised(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken(errno.ENOSPC))
    out = Output(Broken(errno.ENOSPC))
    print("text", file=out)
    complain("text")


@pytest.mark.parametrize("closed", [True, False])
def test_it_is_a_text_stream_for_those_who_ask(closed):
    stream = io.StringIO()
    out = Output(stream)
    assert out.writable()
    assert not out.isatty()
    with pytest.raises(TypeError):
        out.write(b"bytes")  # click asks this way whether a stream is binary
    with pytest.raises(OSError, match="fileno"):
        out.fileno()
    if closed:
        stream.close()
        print("into a closed stream", file=out)


def test_a_complaint_is_one_line_of_bounded_length(capsys):
    complain("a\nb " + "x" * 5000 + " c" * 2000)
    err = capsys.readouterr().err
    assert err.startswith("smpvm: a b xxx")
    assert err.count("\n") == 1
    assert len(err) < 1100
