"""The question a jail must answer before it is trusted: can code inside see or do too much?

`PROBE` runs inside and prints what it found; `check` compares that with what a jail must be.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from gptoss_tools.errors import SandboxError
from gptoss_tools.python.limits import Limits
from gptoss_tools.python.sandbox import Sandbox, run_code
from gptoss_tools.python.workspace import Workspace

# Only `os` is imported: the smallest Python images have little else.
PROBE = """
import os
with open("/proc/self/status") as file:
    status = dict(line.split(":\\t", 1) for line in file if ":\\t" in line)
with open("/proc/net/dev") as file:
    interfaces = [line.split(":")[0].strip() for line in file if ":" in line]
def writable(folder):
    try:
        open(folder + "/.probe", "w").close()
        os.unlink(folder + "/.probe")
        return True
    except OSError:
        return False
found = {
    "the root user": os.getuid() == 0,
    "privileges can grow": status["NoNewPrivs"].strip() != "1",
    "capabilities": int(status["CapEff"], 16) != 0,
    "no system call filter": status["Seccomp"].strip() != "2",
    "network": interfaces not in ([], ["lo"]),
    "files of the host": os.path.exists(SECRET),
    "processes of the host": sum(name.isdigit() for name in os.listdir("/proc")) > 16,
    "writable system": any(map(writable, ["/", "/usr", "/etc", "/dev", "/run/code"])),
    "no writable /mnt/data": not writable("/mnt/data"),
    "an inherited descriptor": any(int(fd) > 3 for fd in os.listdir("/proc/self/fd")),
}
for name, is_open in found.items():
    print(f"{name}={is_open}")
"""


def check(sandbox: Sandbox) -> None:
    """Build a jail and look around in it.

    Raises:
        SandboxError: it cannot be built, or code inside has more than it should.
    """
    limits = Limits(seconds=60)
    with closing(Workspace()) as workspace:
        # A file of this conversation that must not be visible at its own path.
        secret = Path(workspace.exchange, "secret")
        secret.write_text("secret")
        code = f"SECRET = {str(secret)!r}\n{PROBE}"
        outcome = run_code(sandbox, code, workspace, limits=limits)
    found = dict(line.split("=", 1) for line in outcome.output.splitlines() if "=" in line)
    if outcome.exit_code != 0 or not found or not set(found.values()) <= {"True", "False"}:
        said = outcome.stopped or outcome.output.strip()[-500:] or f"exit code {outcome.exit_code}"
        raise SandboxError(f"the {sandbox.name} jail does not work here: {said}")
    open_doors = [name for name, is_open in found.items() if is_open == "True"]
    if open_doors:
        raise SandboxError(
            f"the {sandbox.name} jail is not tight here: {', '.join(open_doors)}; "
            f"code will not be run in it"
        )
