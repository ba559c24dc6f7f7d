"""`gptoss bench serve`: many paced streams through the server, then many short requests.

A server process plays a recording at a fixed pace; this process reads every stream over plain
sockets, checks that each text is whole and measures the gaps between events, the server's
processor time per token, whose code it was spent in, and its memory. Then come short requests of
all kinds, and the memory after each thousand.
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

HELP = "concurrent streams: losses, gaps between events, processor time per token; memory"
WORD = "word "  # one token each
SHORT = (
    "<|channel|>analysis<|message|>Hm.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Hi.<|return|>"
)
AT_ONCE = 16  # short requests


@dataclass(slots=True, kw_only=True)
class Result:
    """What a run gave; times in seconds.

    Attributes:
        whole: streams whose text was complete.
        shares: of the server's processor time, by whose code it was.
        answered: short requests that were.
        memory_mib: of the server, after each tenth of the short requests.
        load: average of the machine at the start and at the end.
    """

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
    shares: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    answered: int = 0
    requests_per_second: float = 0.0
    memory_mib: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--streams", type=positive, default=64, metavar="N", help="at once")
    parser.add_argument("--pace", type=positive, default=200, metavar="N", help="tokens per second")
    parser.add_argument("--seconds", type=positive, default=60, metavar="S", help="of each stream")
    parser.add_argument(
        "--requests", type=int, default=10_000, metavar="N", help="short ones afterwards; 0 none"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """Start servers, ask, print; the exit code is 1 if text was lost."""
    tokens = args.pace * args.seconds
    result = Result(streams=args.streams, pace=args.pace, tokens=tokens, requests=args.requests)
    result.load.append(os.getloadavg()[0])
    with tempfile.TemporaryDirectory() as folder:
        paced_streams(result, Path(folder))
        if args.requests:
            short_requests(result, Path(folder))
    result.load.append(os.getloadavg()[0])
    report(result, as_json=args.json)
    lost = result.streams - result.whole + result.requests - result.answered
    return 1 if lost else 0


def paced_streams(result: Result, folder: Path) -> None:
    """Read all streams at once from a server that plays at the pace."""
    reply = f"<|channel|>final<|message|>{WORD * result.tokens}<|return|>"
    flags = ["--tokens-per-second", str(result.pace), "--max-running", str(result.streams)]
    server, port = start_server(folder, reply, *flags, "--context", str(1 << 20))
    try:
        before = processor_seconds(server.pid)
        asyncio.run(read_all(result, port))
        used = processor_seconds(server.pid) - before
        result.resident_mib = resident_mib(server.pid)
    finally:
        stop_server(server)
    result.cpu_microseconds_per_token = 1e6 * used / (result.streams * result.tokens)
    samples = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    result.shares = {owner: n / sum(samples.values()) for owner, n in samples.items()}


def short_requests(result: Result, folder: Path) -> None:
    """Ask for short answers of all kinds, looking at the memory on the way."""
    server, port = start_server(folder, SHORT)
    try:
        asyncio.run(ask_all(result, port, server.pid))
    finally:
        stop_server(server)


def start_server(folder: Path, reply: str, *flags: str) -> tuple[subprocess.Popen[str], int]:
    """Start `gptoss serve` on a free port, watched, and wait until it listens."""
    script = folder / "script.json"
    script.write_text(json.dumps({"replies": [reply]}), encoding="utf-8")
    command = [sys.executable, "-m", "gptoss_serve.benches.sampler", str(folder / "samples.json")]
    command += ["serve", "--checkpoint", str(script), "--inference-backend", "scripted"]
    command += ["--port", "0", "--store", "off", "--quiet", *flags]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"serving on http://[^:]+:(\d+)", line):
            return server, int(found[1])
    raise EngineError(f"the server did not start (exit code {server.wait()})")


def stop_server(server: subprocess.Popen[str]) -> None:
    """Stop it and wait."""
    server.terminate()
    server.wait()
    assert server.stderr is not None
    server.stderr.close()


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
    body = {"input": "go", "stream": True, "store": False}
    reader, writer = await ask(port, "/v1/responses", body)
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


async def ask_all(result: Result, port: int, pid: int) -> None:
    """Ask in ten rounds, a few at once."""
    started = time.perf_counter()
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> bool:
        async with limit:
            return await ask_one(port, number)

    for tenth in range(10):
        numbers = range(result.requests * tenth // 10, result.requests * (tenth + 1) // 10)
        result.answered += sum(await asyncio.gather(*map(one, numbers)))
        result.memory_mib.append(round(resident_mib(pid), 1))
    result.requests_per_second = result.requests / (time.perf_counter() - started)


async def ask_one(port: int, number: int) -> bool:
    """Ask for one short answer; returns whether it came."""
    messages = [{"role": "user", "content": f"question {number}"}]
    path, body = (
        ("/v1/responses", {"input": messages}),
        ("/v1/chat/completions", {"messages": messages}),
        ("/v1/completions", {"prompt": f"question {number}"}),
    )[number % 3]
    reader, writer = await ask(port, path, {**body, "stream": number % 2 == 0})
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200") and (b"Hi." in answer or b"Hm." in answer)


async def ask(
    port: int, path: str, body: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request over a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}\r\n"
    writer.write(head.encode() + b"connection: close\r\n\r\n" + raw)
    return reader, writer


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory that a process holds now (Linux)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(result: Result, *, as_json: bool) -> None:
    """Print for people or programs."""
    values = {k: v for k, v in asdict(result).items() if k != "gaps"}
    if as_json:
        print(json.dumps(values, indent=2))
        return
    shares = ", ".join(f"{owner} {share:.0%}" for owner, share in result.shares.items())
    print(
        f"{result.whole} of {result.streams} streams whole, {result.tokens} tokens each in "
        f"{result.seconds:.1f} s\ngaps between events: p50 {result.p50_gap * 1e3:.1f} ms, p99 "
        f"{result.p99_gap * 1e3:.1f} ms, longest {result.longest_gap * 1e3:.1f} ms\nserver: "
        f"{result.cpu_microseconds_per_token:.1f} us of processor time per token, "
        f"{result.resident_mib:.0f} MiB\nspent in: {shares}"
    )
    if result.requests:
        print(
            f"{result.answered} of {result.requests} short requests answered, "
            f"{result.requests_per_second:.0f} per second; MiB after each tenth: "
            f"{', '.join(map(str, result.memory_mib))}"
        )
    print(f"load average {result.load[0]:.1f} before, {result.load[1]:.1f} after")
