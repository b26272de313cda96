"""The Dockerfile, docker-compose.yml, and the configuration of the front."""

import re
import shutil

import yaml

from ground import DEPLOY, ROOT, Refused, refuse, register, run
from kubernetes import SERVICES, refused_settings

CHECKS = []
check = register(CHECKS)

PROFILES = ("core", "observability", "cli", "setup")


def compose():
    """The file as Docker Compose understands it, with the settings of .env.example."""
    # The plugin where it is there, and else the program of the first generation, which Debian has.
    command = ["docker", "compose"] if has_plugin() else ["docker-compose"]
    profiles = [word for profile in PROFILES for word in ("--profile", profile)]
    return yaml.safe_load(run(*command, "--env-file", ".env.example", *profiles, "config"))["services"]


def has_plugin():
    try:
        return shutil.which("docker") is not None and "version" in run("docker", "compose", "version").lower()
    except Refused:
        return False


@check
def hadolint_finds_nothing_in_the_dockerfile():
    run("hadolint", DEPLOY / "docker/Dockerfile")


@check
def the_front_reads_its_configuration():
    # Names of containers lead nowhere here, which is a warning only.
    run("haproxy", "-c", "-f", DEPLOY / "docker/haproxy.cfg")


@check
def compose_starts_everything_in_order_confined_and_with_settings_that_our_programs_take():
    services, problems = compose(), []
    programs = {entry["image"].split("/")[-1].split(":")[0] for entry in services.values()}
    expected = {"muster", "muster-registry", "muster-router", "muster-workflow-engine"} | {f"muster-agent-{agent}" for agent in SERVICES[3:]}
    if not expected <= programs:
        problems.append(f"no service for {sorted(expected - programs)}")
    for name, entry in services.items():
        if not entry.get("mem_limit") or not entry.get("cpus"):
            problems.append(f"{name}: has no limits of memory and processor")
        if not entry.get("read_only") or entry.get("cap_drop") != ["ALL"]:
            problems.append(f"{name}: may write to its root, or has capabilities")
        for port in entry.get("ports", []):
            published = port if isinstance(port, str) else f"{port.get('host_ip', '')}:{port.get('published')}"
            if not published.startswith("127.0.0.1:"):
                problems.append(f"{name}: publishes {published} to others than this machine")
        if ":" not in entry["image"].split("/")[-1] or entry["image"].endswith(":latest"):
            problems.append(f"{name}: its image has no version")
        for needed, how in (entry.get("depends_on") or {}).items():
            target = services[needed]
            has_check = "healthcheck" in target or needed not in ("redis", "prometheus")
            if isinstance(how, dict) and how["condition"] == "service_healthy" and not has_check:
                problems.append(f"{name}: waits for the health of {needed}, which has none")
        program = entry["image"].split("/")[-1].split(":")[0]
        if program.startswith("muster-"):
            environment = {key: str(value) for key, value in (entry.get("environment") or {}).items()}
            problem = refused_settings(program, {**image_environment(), **environment}, [], {})
            if problem:
                problems.append(f"{name}: {problem}")
            if environment.get("MUSTER__TRUST__MODE") != "native":
                problems.append(f"{name}: does not speak mutual TLS")
    refuse(problems)


def image_environment():
    """What the Dockerfile sets for every service."""
    dockerfile = (DEPLOY / "docker/Dockerfile").read_text()
    return dict(re.findall(r"(MUSTER__\w+)=(\S+)", dockerfile))


@check
def the_image_has_no_root_and_no_shell():
    dockerfile = (DEPLOY / "docker/Dockerfile").read_text()
    final = dockerfile.split("AS base\n", 1)[1]
    problems = []
    if "USER 65532:65532" not in final:
        problems.append("the images run as root")
    if re.search(r"^RUN ", final, re.MULTILINE):
        problems.append("the images need a shell to be built, and would have one")
    for label in ("title", "description", "licenses", "source", "version", "revision"):
        if f"org.opencontainers.image.{label}=" not in final:
            problems.append(f"the label org.opencontainers.image.{label} is missing")
    members = re.findall(r'^    "(services/\S+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    if len(members) != len(SERVICES) + 1:
        problems.append(f"the workspace has {len(members)} programs, and {len(SERVICES) + 1} are deployed")
    refuse(problems)
