"""`gptoss bench load`: how fast weights reach a device, and the memory it takes.

The peer in the same run is a plain read: every file from its first to its last byte into one
page-locked buffer and from there to the device (on a CPU, into the buffer only). Both see the same
files, which should be in the file cache or in memory: the plain read comes first and warms it.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gptoss_core.device import choose_device
from gptoss_core.memory import peak_bytes
from gptoss_core.model import Transformer
from gptoss_harmony.checkpoint import Checkpoint

HELP = "load a checkpoint: seconds, GB/s beside a plain read, peak memory of device and host"
BUFFER_BYTES = 64 << 20
SAMPLE_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One load; sizes in GB (10^9 bytes), times in seconds."""

    checkpoint: str
    layout: str
    device: str
    experts: str
    file_gb: float
    plain_read_seconds: float
    plain_read_gb_per_second: float
    load_seconds: float
    load_gb_per_second: float
    peak_device_gb: float
    peak_host_gb: float  # memory of this process beyond what it had, mapped files not counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    parser.add_argument("--checkpoint", default="nano", metavar="CHECKPOINT", help="default nano")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps, or auto (default)")
    parser.add_argument(
        "--experts",
        default="packed",
        choices=["packed", "dense"],
        help="how to hold the experts: MXFP4 as on disk, or expanded to bf16 (default packed)",
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    device = choose_device(args.device)
    report = measure(args.checkpoint, device=device, experts=args.experts)
    if args.json:
        print(json.dumps(asdict(report), indent=2))
    else:
        for name, value in asdict(report).items():
            shown = f"{value:.3f}" if isinstance(value, float) else value
            print(f"{name.replace('_', ' '):26} {shown}")
    return 0


def measure(path: str | Path, *, device: torch.device, experts: str = "packed") -> Report:
    """Read plainly, then load, and compare."""
    checkpoint = Checkpoint.open(path)
    size = sum(file.stat().st_size for file in checkpoint.files)
    plain = plain_read(checkpoint.files, device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with HostPeak() as host:
        start = time.perf_counter()
        model = Transformer.from_checkpoint(
            path, device=device, experts="packed" if experts == "packed" else "dense"
        )
        _synchronize(device)
        seconds = time.perf_counter() - start
    del model
    return Report(
        checkpoint=str(path),
        layout=checkpoint.layout,
        device=str(device),
        experts=experts,
        file_gb=size / 1e9,
        plain_read_seconds=plain,
        plain_read_gb_per_second=size / plain / 1e9,
        load_seconds=seconds,
        load_gb_per_second=size / seconds / 1e9,
        peak_device_gb=peak_bytes(device) / 1e9,
        peak_host_gb=host.peak / 1e9,
    )


def plain_read(files: tuple[Path, ...], device: torch.device) -> float:
    """Seconds to read every byte of the files and, on CUDA, to send it to the device."""
    cuda = device.type == "cuda"
    buffer = torch.empty(BUFFER_BYTES, dtype=torch.uint8, pin_memory=cuda)
    target = torch.empty(BUFFER_BYTES, dtype=torch.uint8, device=device) if cuda else None
    view = buffer.numpy().data
    _synchronize(device)
    start = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(view):
                if target is not None:
                    target[:count].copy_(buffer[:count], non_blocking=True)
                    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class HostPeak:
    """Samples this process's own memory (RssAnon, on Linux) in the background.

    `peak` is the most it grew by, in bytes; 0 where the system does not tell.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> HostPeak:
        self._start = _anonymous_bytes()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        """Sample until told to stop."""
        while not self._stop.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, _anonymous_bytes() - self._start)


def _anonymous_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
