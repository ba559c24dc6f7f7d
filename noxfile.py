"""Everything the project does to itself: demo, tests, lint, docs, bench, build, bump, release.

Packages are found under packages/; a new one needs no edit here. The sessions that need every
package share one virtual environment under .nox/, made by the interpreter that runs nox, so that
torch is installed once; `tests` also runs the packages that need no torch on the other Pythons it
finds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import nox

ROOT = Path(__file__).parent
SUPPORTED = ("3.11", "3.12", "3.13")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
# What differs between Pythons shows in the quick tests; real engines and long runs are met once.
QUICK = "not slow and not two_venvs and not docker and not node and not codex and not vllm"
# The tests of a file stay together and share what they start; each worker has its own threads.
CORES = os.cpu_count() or 1
WORKERS = (f"--numprocesses={min(4, CORES)}", "--dist=loadfile")
THREADS = {"OMP_NUM_THREADS": str(max(1, CORES // 4))}
SHARED = ROOT / ".nox" / f"all-packages-{HERE}"

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "tests", "docs"]
nox.options.reuse_existing_virtualenvs = True


class Package:
    """One folder under packages/ and what its pyproject says."""

    def __init__(self, folder: Path) -> None:
        document = nox.project.load_toml(folder / "pyproject.toml")
        self.folder = folder
        self.project = document["project"]
        self.name: str = self.project["name"]
        self.groups = document.get("dependency-groups", {})
        # A package's extras all take part in the tests, those with torch on this Python only.
        optional = self.project.get("optional-dependencies", {})
        self.extras = [x for x in optional if x != "all"]
        self.light_extras = [x for x in self.extras if not names_torch(optional[x])]
        self.test_requirements: list[str] = self.groups.get("test", [])

    @property
    def siblings(self) -> set[str]:
        """The names of the packages of this repository that it or its tests need."""
        wanted = [*self.project.get("dependencies", []), *self.test_requirements]
        return {requirement_name(line) for line in wanted if line.startswith("gptoss-")}

    def needs_torch(self, packages: dict[str, Package]) -> bool:
        """Whether torch is among what it or its tests need, directly or through a sibling."""
        lines = [*self.project.get("dependencies", []), *self.test_requirements]
        return names_torch(lines) or any(
            packages[name].needs_torch(packages) for name in self.siblings
        )


def requirement_name(line: str) -> str:
    """Return the distribution that a requirement line names."""
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()


def names_torch(lines: list[str]) -> bool:
    """Whether torch is among requirement lines."""
    return any(requirement_name(line) == "torch" for line in lines)


def find_packages() -> dict[str, Package]:
    """Return every package by name, those that others need first."""
    found = [Package(file.parent) for file in sorted(ROOT.glob("packages/*/pyproject.toml"))]
    packages = {package.name: package for package in found}
    ordered: dict[str, Package] = {}

    def visit(package: Package) -> None:
        for name in sorted(package.siblings & packages.keys()):
            if name not in ordered:
                visit(packages[name])
        ordered[package.name] = package

    for package in found:
        visit(package)
    return ordered


def version() -> str:
    """Return the one version, from the root pyproject."""
    return str(nox.project.load_toml(ROOT / "pyproject.toml")["tool"]["gptoss"]["version"])


def dependency_group(name: str) -> tuple[str, ...]:
    """Return a dependency group of the root pyproject."""
    return nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), name)


def other_pythons() -> list[str]:
    """Return the supported Pythons, other than this one, that are installed and start."""
    return [name for name in SUPPORTED if name != HERE and starts(f"python{name}")]


def starts(program: str) -> bool:
    """Whether a program is there and runs; version managers leave shims that do not."""
    found = shutil.which(program)
    return (
        found is not None
        and not subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode
    )


def editable(packages: list[Package], *, light: bool = False) -> list[str]:
    """Return pip's arguments that install packages from the tree, with their extras.

    With `light`, without the extras that need torch.
    """
    arguments = []
    for package in packages:
        chosen = package.light_extras if light else package.extras
        extras = f"[{','.join(chosen)}]" if chosen else ""
        arguments += ["--editable", f"{package.folder}{extras}"]
    return arguments


def shared(session: nox.Session, *requirements: str) -> Callable[..., object]:
    """Make the shared environment, or bring it up to date, and return what runs a program in it."""
    binaries = SHARED / ("Scripts" if os.name == "nt" else "bin")
    path = os.pathsep.join([str(binaries), os.environ["PATH"]])
    if not binaries.is_dir():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(SHARED))

    def run(program: str, *arguments: str, **environment: str) -> object:
        env = {"PATH": path, "VIRTUAL_ENV": str(SHARED), **environment}
        return session.run(str(binaries / program), *arguments, env=env)

    packages = editable(list(find_packages().values()))
    run("python", "-m", "pip", "install", "--quiet", *packages, *requirements)
    return run


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Set everything up and ask nano. A sentence after -- is what JSON is extracted from."""
    run = shared(session)
    run("python", "docs/tutorial/demo.py", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the tests: every package on this Python, those without torch on the others found."""
    packages = list(find_packages().values())
    run = shared(session, *test_requirements(packages))
    run("pytest", *test_folders(packages), *WORKERS, *session.posargs, **THREADS)
    for name in other_pythons():
        session.notify(f"tests_without_torch-{name}", session.posargs)


@nox.session(python=SUPPORTED, default=False)
def tests_without_torch(session: nox.Session) -> None:
    """Run the tests of the packages that need no torch; `tests` calls this."""
    every = find_packages()
    packages = [package for package in every.values() if not package.needs_torch(every)]
    session.install("--quiet", *editable(packages), *test_requirements(packages))
    arguments = [*test_folders(packages), *WORKERS, "-m", QUICK, *session.posargs]
    session.run("pytest", *arguments, env=THREADS)


def test_requirements(packages: list[Package]) -> list[str]:
    """Return what the tests of packages need beside the packages themselves."""
    lines = {line for package in packages for line in package.test_requirements}
    return [*dependency_group("test"), *sorted(x for x in lines if not x.startswith("gptoss-"))]


def test_folders(packages: list[Package]) -> list[str]:
    """Return the folders with the tests of packages."""
    return [str(p.folder / "tests") for p in packages if (p.folder / "tests").is_dir()]


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check format, lint, types, import arrows, version pins and the house rules."""
    packages = list(find_packages().values())
    run = shared(session, *dependency_group("lint"), *test_requirements(packages))
    run("ruff", "format", "--check", ".")
    run("ruff", "check", ".")
    sources = [str(package.folder / "src") for package in packages]
    for source in sources:
        run("mypy", source, MYPYPATH=os.pathsep.join(sources))
    run("python", "docs/checks/arrows.py")
    run("python", "docs/checks/house_rules.py")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the site; run every code block; check that every option is documented."""
    packages = list(find_packages().values())
    run = shared(session, *dependency_group("docs"), *test_requirements(packages))
    run("python", "docs/checks/options.py")
    run("python", "docs/checks/code_blocks.py", *session.posargs)
    run("mkdocs", "build", "--strict", "--quiet", "-f", ".mkdocs.yml")


@nox.session(default=False)
def build(session: nox.Session) -> None:
    """Build sdists, wheels from the sdists, and install and import each wheel in a clean venv."""
    session.install("--quiet", "build", "twine", "virtualenv")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    packages = list(find_packages().values())
    for package in packages:
        # Without --sdist or --wheel, build makes the wheel from the sdist it just made.
        session.run(
            "python", "-m", "build", "--outdir", str(dist), str(package.folder), silent=True
        )
    session.run("twine", "check", "--strict", *map(str, sorted(dist.iterdir())))
    for package in packages:
        check_wheel(session, package, dist)


def check_wheel(session: nox.Session, package: Package, dist: Path) -> None:
    """Install one wheel in a clean environment, with its siblings from `dist`, and import it."""
    venv = Path(session.create_tmp()) / package.name
    session.run("virtualenv", "--quiet", "--clear", str(venv))
    python = str(venv / ("Scripts" if os.name == "nt" else "bin") / "python")
    wheel = f"{package.name}=={version()}"
    pip = [python, "-m", "pip", "install", "--quiet", "--no-compile", "--find-links", str(dist)]
    session.run(*pip, wheel, external=True)
    module = package.name.replace("-", "_")
    check = f"import {module}, importlib.metadata as m; print(m.version({package.name!r}))"
    session.run(python, "-W", "error", "-c", check, external=True)


@nox.session(venv_backend="none", default=False)
def bump(session: nox.Session) -> None:
    """Set the version after -- everywhere: the root, the pins between packages, the changelog."""
    if len(session.posargs) != 1 or not re.fullmatch(r"\d+\.\d+\.\d+\w*", session.posargs[0]):
        session.error("give the new version: nox -s bump -- 0.2.0")
    old, new = version(), session.posargs[0]
    names = "|".join(map(re.escape, find_packages()))
    replace(ROOT / "pyproject.toml", rf'(?m)^version = "{re.escape(old)}"$', f'version = "{new}"')
    for package in find_packages().values():
        replace(
            package.folder / "pyproject.toml", rf"\b({names})(\[[\w,]+\])?==[\w.]+", rf"\1\2=={new}"
        )
    heading = f"# Changelog\n\n## {new} - {date.today().isoformat()}\n"
    replace(ROOT / "docs" / "changelog.md", r"\A# Changelog\n", heading)
    session.log(f"{old} -> {new}; now write docs/changelog.md")


def replace(file: Path, pattern: str, replacement: str) -> None:
    """Rewrite a file by a regular expression."""
    file.write_text(
        re.sub(pattern, replacement, file.read_text(encoding="utf-8")), encoding="utf-8"
    )


@nox.session(venv_backend="none", default=False)
def release(session: nox.Session) -> None:
    """Check version, pins, changelog and tag, then build everything once."""
    if f"\n## {version()} " not in (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8"):
        session.error(f"docs/changelog.md has no section for {version()}")
    tag = os.environ.get("GITHUB_REF_NAME", f"v{version()}")
    if tag != f"v{version()}":
        session.error(f"the tag {tag} is not v{version()}")
    session.run(sys.executable, "docs/checks/house_rules.py", "--pins", external=True)
    session.notify("build")
