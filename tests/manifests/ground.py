"""What the checks stand on: where things are, running a tool, refusing."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = pathlib.Path(os.environ.get("MUSTER_TEST_TOOLS", ROOT / "target/test-tools/bin"))


class Refused(Exception):
    """Something does not hold; the text says what, where, and what to do."""


def register(checks):
    """A decorator that adds a function to a list of checks."""

    def add(function):
        checks.append(function)
        return function

    return add


def refuse(problems):
    """Fails with all of the problems, where there are some."""
    problems = list(problems)
    if problems:
        raise Refused("\n".join(problems))


def tool(name):
    """A program that tests/run installs; beside this Python, or among the other tools, before the system's."""
    for folder in (pathlib.Path(sys.prefix, "bin"), TOOLS):
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name)
    if not found:
        raise Refused(f"{name} is missing; tests/run installs it")
    return found


def run(*command, expect=0, environment=None, **options):
    """Runs a program to its end; its output, or a refusal with it."""
    environment = {**os.environ, **(environment or {})}
    command = [tool(command[0]) if "/" not in str(command[0]) else str(command[0]), *map(str, command[1:])]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=300,
        env=environment,
        cwd=options.pop("cwd", ROOT),
        **options,
    )
    if done.returncode != expect:
        raise Refused(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


@functools.cache
def read(path):
    """All documents of a YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def relative(path):
    """A path as people write it."""
    return str(path.relative_to(ROOT))
