"""Everything the project does to itself: demo, tests, lint, docs, bench, build, bump, release.

Packages are found under packages/; a new one needs no edit here. The sessions that need every
package share one virtual environment, made by the interpreter that runs nox; `tests` also runs the
packages that need no torch on the other Pythons it finds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import nox

ROOT = Path(__file__).parent
SUPPORTED = ("3.11", "3.12", "3.13")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
SHARED_VENV = str(ROOT / ".nox" / "all-packages")

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
        # A package's extras all take part in the tests, except those that want special machines.
        self.extras = [x for x in self.project.get("optional-dependencies", {}) if x != "all"]
        self.test_requirements: list[str] = self.groups.get("test", [])

    @property
    def siblings(self) -> set[str]:
        """The names of the packages of this repository that it or its tests need."""
        wanted = [*self.project.get("dependencies", []), *self.test_requirements]
        return {requirement_name(line) for line in wanted if line.startswith("gptoss-")}

    def needs_torch(self, packages: dict[str, Package]) -> bool:
        """Whether torch is among what it or its tests need, directly or through a sibling."""
        lines = [*self.project.get("dependencies", []), *self.test_requirements]
        return any(requirement_name(line) == "torch" for line in lines) or any(
            packages[name].needs_torch(packages) for name in self.siblings
        )


def requirement_name(line: str) -> str:
    """Return the distribution that a requirement line names."""
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()


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


def install(session: nox.Session, packages: list[Package], *requirements: str) -> None:
    """Install packages from the tree, with their extras, and other requirements."""
    editable = []
    for package in packages:
        extras = f"[{','.join(package.extras)}]" if package.extras else ""
        editable += ["--editable", f"{package.folder}{extras}"]
    session.install("--quiet", *editable, *requirements)


@nox.session(venv_location=SHARED_VENV)
def demo(session: nox.Session) -> None:
    """Set everything up and ask nano. A sentence after -- is what JSON is extracted from."""
    install(session, list(find_packages().values()))
    session.run("python", "docs/tutorial/demo.py", *session.posargs)


@nox.session(venv_location=SHARED_VENV)
def tests(session: nox.Session) -> None:
    """Run the tests: every package on this Python, those without torch on the others found."""
    run_tests(session, list(find_packages().values()))
    for name in other_pythons():
        session.notify(f"tests_without_torch-{name}", session.posargs)


@nox.session(python=SUPPORTED, default=False)
def tests_without_torch(session: nox.Session) -> None:
    """Run the tests of the packages that need no torch; `tests` calls this."""
    packages = find_packages()
    run_tests(session, [p for p in packages.values() if not p.needs_torch(packages)])


def run_tests(session: nox.Session, packages: list[Package]) -> None:
    """Install packages with what their tests need, and run pytest over all of them at once."""
    requirements = {line for p in packages for line in p.test_requirements if "gptoss-" not in line}
    install(session, packages, *dependency_group("test"), *sorted(requirements))
    folders = [str(p.folder / "tests") for p in packages if (p.folder / "tests").is_dir()]
    session.run("pytest", *folders, *session.posargs)


@nox.session(venv_location=SHARED_VENV)
def lint(session: nox.Session) -> None:
    """Check format, lint, types, import arrows, version pins and the house rules."""
    packages = list(find_packages().values())
    install(session, packages, *dependency_group("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    sources = [str(package.folder / "src") for package in packages]
    # One run per package: with every tree on one command line mypy would want unique test names.
    for source in sources:
        session.run("mypy", source, env={"MYPYPATH": os.pathsep.join(sources)})
    session.run("python", "docs/checks/arrows.py")
    session.run("python", "docs/checks/house_rules.py")


@nox.session(venv_location=SHARED_VENV)
def docs(session: nox.Session) -> None:
    """Build the site; run every code block; check that every option is documented."""
    install(session, list(find_packages().values()), *dependency_group("docs"))
    session.run("python", "docs/checks/options.py")
    session.run("python", "docs/checks/code_blocks.py", *session.posargs)
    session.run("mkdocs", "build", "--strict", "--quiet", "-f", ".mkdocs.yml")


@nox.session(venv_location=SHARED_VENV, default=False)
def bench(session: nox.Session) -> None:
    """Run `gptoss bench` with what stands after --."""
    install(session, list(find_packages().values()))
    session.run("gptoss", "bench", *session.posargs)


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
    pip = [python, "-m", "pip", "install", "--quiet", "--find-links", str(dist)]
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
