"""`gptoss bench serve`: many paced streams through the server; nothing may get lost.

A server process plays a recording at a fixed pace; this process reads every stream over plain
sockets, checks that each text is whole and measures the gaps between events, the server's
processor time per token (of which the recording itself needs next to nothing) and its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gptoss_harmony.errors import EngineError
from gptoss_harmony.options import positive

HELP = "concurrent streams: losses, gaps between events, processor time per token"
WORD = "word "  # one token each


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run gave; times in seconds."""

    streams: int
    pace: int
    tokens: int
    seconds: float = 0.0
    whole: int = 0
    p50_gap: float = 0.0
    p99_gap: float = 0.0
    longest_gap: float = 0.0
    cpu_microseconds_per_token: float = 0.0
    resident_mib: float = 0.0
    gaps: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--streams", type=positive, default=64, metavar="N", help="at once")
    parser.add_argument("--pace", type=positive, default=200, metavar="N", help="tokens per second")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="of each stream")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Start a server, read all streams, print; the exit code is 1 if text was lost."""
    tokens = args.pace * args.seconds
    result = Result(streams=args.streams, pace=args.pace, tokens=tokens)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.json")
        reply = f"<|channel|>final<|message|>{WORD * tokens}<|return|>"
        script.write_text(json.dumps({"replies": [reply]}), encoding="utf-8")
        server, port = start_server(script, args)
        try:
            before = processor_seconds(server.pid)
            asyncio.run(read_all(result, port))
            used = processor_seconds(server.pid) - before
            result.resident_mib = resident_bytes(server.pid) / 2**20
        finally:
            server.terminate()
            server.wait()
    result.cpu_microseconds_per_token = 1e6 * used / (args.streams * tokens)
    report(result, as_json=args.json)
    return 0 if result.whole == result.streams else 1


def start_server(script: Path, args: argparse.Namespace) -> tuple[subprocess.Popen[str], int]:
    """Start `gptoss serve` on a free port and wait until it listens."""
    command = [sys.executable, "-m", "gptoss_serve.responses", "--checkpoint", str(script)]
    command += ["--inference-backend", "scripted", "--tokens-per-second", str(args.pace)]
    command += ["--port", "0", "--store", "off", "--quiet", "--max-running", str(args.streams)]
    command += ["--context", str(1 << 20)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"serving on http://[^:]+:(\d+)", line):
            return server, int(found[1])
    raise EngineError(f"the server did not start (exit code {server.wait()})")


async def read_all(result: Result, port: int) -> None:
    """Open every stream at once and read them to their ends."""
    started = time.perf_counter()
    texts = await asyncio.gather(*(read_one(result, port) for _ in range(result.streams)))
    result.seconds = time.perf_counter() - started
    result.whole = sum(length == len(WORD) * result.tokens for length in texts)
    gaps = sorted(result.gaps)
    result.p50_gap, result.p99_gap = gaps[len(gaps) // 2], gaps[len(gaps) * 99 // 100]
    result.longest_gap = gaps[-1]


async def read_one(result: Result, port: int) -> int:
    """Read one stream; returns how many characters of text came in deltas."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    body = json.dumps({"input": "go", "stream": True, "store": False}).encode()
    head = f"POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + b"connection: close\r\n\r\n" + body)
    length, last = 0, 0.0
    async for line in reader:
        if not line.startswith(b'data: {"type":"response.output_text.delta"'):
            continue
        length += len(json.loads(line[6:])["delta"])
        now = time.perf_counter()
        if last:
            result.gaps.append(now - last)
        last = now
    writer.close()
    return length


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process holds now (Linux)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(result: Result, *, as_json: bool) -> None:
    """Print for people or programs."""
    values = {k: v for k, v in asdict(result).items() if k != "gaps"}
    if as_json:
        print(json.dumps(values, indent=2))
        return
    print(
        f"{result.whole} of {result.streams} streams whole, {result.tokens} tokens each in "
        f"{result.seconds:.1f} s\ngaps between events: p50 {result.p50_gap * 1e3:.1f} ms, p99 "
        f"{result.p99_gap * 1e3:.1f} ms, longest {result.longest_gap * 1e3:.1f} ms\nserver: "
        f"{result.cpu_microseconds_per_token:.1f} us of processor time per token, "
        f"{result.resident_mib:.0f} MiB"
    )
