import io

from gptoss_harmony.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_share_rate_and_rest():
    ticks = iter(range(100))
    stream = Terminal()
    with ProgressBar("copy", 4_000_000_000, stream=stream, clock=lambda: next(ticks)) as bar:
        for _ in range(4):
            bar.advance(1_000_000_000)
    lines = stream.getvalue().split("\r")[1:]
    assert "[######..................]  25%  1.0/4.0 GB  0.50 GB/s  0:00:06 left" in lines[0]
    assert "100%  4.0/4.0 GB" in lines[-1]
    assert stream.getvalue().endswith("\n")


def test_drawing_is_rationed_and_pipes_see_nothing():
    stream, pipe = Terminal(), io.StringIO()
    with ProgressBar("copy", 10, stream=stream, clock=lambda: 0.0) as bar:
        for _ in range(10):
            bar.advance(1)
    assert stream.getvalue().count("\r") == 1
    with ProgressBar("copy", 10, stream=pipe) as bar:
        bar.advance(5)
    assert pipe.getvalue() == ""
