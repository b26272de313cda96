"""The overlays: rendered, validated by the schemas of those who will read them, and held against each other and our programs."""

import functools
import importlib
import json
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time

import kubernetes_validate
import yaml

from ground import DEPLOY, ROOT, Refused, read, refuse, register, relative, run, tool

CHECKS = []
check = register(CHECKS)

FOLDER = DEPLOY / "kubernetes"
REGIONS = ("us-east-1", "us-west-2", "eu-west-1")
OVERLAYS = ("local", "istio-only", "production", *REGIONS)
VERSION = "1.33"
SERVICES = ("registry", "router", "workflow-engine", "weather", "planning", "customer-service", "data-analysis", "security-monitor")
WORKLOADS = ("Deployment", "StatefulSet", "Job")
# The numbers that an overlay must come to: least replicas, and limits.
NUMBERS = {
    "istio-only": (3, "1Gi", "1000m"),
    "production": (3, "1Gi", "1000m"),
    "us-east-1": (5, "2Gi", "1000m"),
    "us-west-2": (3, "1Gi", "500m"),
    "eu-west-1": (3, "1Gi", "500m"),
}


@functools.cache
def text(overlay):
    """An overlay as it would be applied."""
    return run("kubectl", "kustomize", FOLDER / "overlays" / overlay)


@functools.cache
def rendered(overlay):
    """Its objects."""
    return [document for document in yaml.safe_load_all(text(overlay)) if document]


def of_kind(overlay, *kinds):
    return [item for item in rendered(overlay) if item["kind"] in kinds]


def secrets_of(overlay):
    """The Secrets that are made from what an overlay says, or, where it leaves that to people, by the script for them."""
    made = {item["spec"]["target"]["name"]: item["spec"]["target"]["template"]["data"] for item in of_kind(overlay, "ExternalSecret")}
    if overlay == "istio-only":
        secret = yaml.safe_load(run(FOLDER / "redis-secret"))
        made[secret["metadata"]["name"]] = secret["stringData"]
    return made


def name(item):
    return f"{item['kind']} {item['metadata']['name']}"


@check
def every_overlay_renders_and_fits_the_schemas_of_its_readers():
    problems = []
    for overlay in OVERLAYS:
        for item in rendered(overlay):
            try:
                validate(item)
            except Exception as error:  # each library has its own
                problems.append(f"{overlay}: {name(item)}: {str(error)[:600]}")
    refuse(problems)


def validate(item):
    group, _, version = item["apiVersion"].rpartition("/")
    if group.endswith(".istio.io"):
        models = importlib.import_module(f"cloudcoil.models.istio.{group.split('.')[0]}.{version}")
        strict(getattr(models, item["kind"]), item)
    elif group == "monitoring.coreos.com":
        models = importlib.import_module(f"cloudcoil.models.prometheus_operator.{version}")
        strict(getattr(models, item["kind"]), item)
    elif group in ("argoproj.io", "external-secrets.io"):
        pass  # no schema of theirs is among the registries' packages; see `rollouts_…` for what is checked
    else:
        kubernetes_validate.validate(item, VERSION, strict=True)


def strict(model, item):
    """Also refuses what the model does not know, which it would drop."""
    known = json.loads(model.model_validate(item).model_dump_json(by_alias=True, exclude_none=True))
    lost = sorted(set(paths(item)) - set(paths(known)))
    if lost:
        raise Refused(f"unknown fields: {', '.join(lost[:8])}")


def paths(node, above=""):
    if isinstance(node, dict):
        for key, value in node.items():
            yield f"{above}.{key}"
            yield from paths(value, f"{above}.{key}")
    elif isinstance(node, list):
        for entry in node:
            yield from paths(entry, f"{above}[]")


@check
def the_mesh_keeps_apart_what_every_region_has_for_itself():
    validate(read(DEPLOY / "istio/east-west.yaml")[0])
    settings = read(DEPLOY / "istio/mesh.yaml")[0]["spec"]["meshConfig"]["serviceSettings"]
    local = {host.split(".")[0] for entry in settings if entry["settings"]["clusterLocal"] for host in entry["hosts"]}
    for overlay in REGIONS:
        services = {item["metadata"]["name"] for item in of_kind(overlay, "Service")}
        shared = {name for name in services if name.endswith(f"-{overlay}")}
        if services - shared != local:
            raise Refused(f"{overlay}: local to each region must be {sorted(services - shared)}, mesh.yaml says {sorted(local)}")


@check
def checkov_finds_nothing_that_is_not_explained():
    with tempfile.TemporaryDirectory() as folder:
        for overlay in OVERLAYS:
            with open(f"{folder}/{overlay}.yaml", "w") as file:
                file.write(text(overlay))
        # A home without a configuration, and no look-ups of guidelines.
        run(
            "checkov", "--directory", folder, "--framework", "kubernetes", "--quiet", "--compact",
            "--config-file", FOLDER / "checkov.yaml", environment={"LOG_LEVEL": "CRITICAL", "HOME": folder},
        )


@check
def yaml_files_are_well_formed():
    workflows = ROOT / ".github"
    run("yamllint", "--strict", "--config-file", DEPLOY / ".yamllint.yaml", DEPLOY, ROOT / "docker-compose.yml", workflows)


@check
def names_lead_to_what_they_name():
    problems = []
    for overlay in OVERLAYS:
        problems += [f"{overlay}: {problem}" for problem in dangling(overlay)]
    refuse(problems)


def pods(overlay):
    """The template of each workload, with its labels."""
    return [(item, item["spec"]["template"]) for item in of_kind(overlay, *WORKLOADS)]


def selects(selector, template):
    return selector.items() <= template["metadata"]["labels"].items()


def dangling(overlay):
    templates = pods(overlay)
    accounts = {item["metadata"]["name"] for item in of_kind(overlay, "ServiceAccount")}
    services = {item["metadata"]["name"]: item for item in of_kind(overlay, "Service")}
    maps = {item["metadata"]["name"] for item in of_kind(overlay, "ConfigMap")}
    secrets = secrets_of(overlay)
    workloads = {name(item) for item in of_kind(overlay, "Deployment", "StatefulSet", "Rollout")}
    for item in services.values():
        chosen = [template for _, template in templates if selects(item["spec"]["selector"], template)]
        if not chosen:
            yield f"{name(item)} selects no pod"
        for port in item["spec"]["ports"]:
            named = {entry["name"] for template in chosen for box in template["spec"]["containers"] for entry in box.get("ports", [])}
            if port["targetPort"] not in named:
                yield f"{name(item)}: no container has a port named {port['targetPort']}"
            if "appProtocol" not in port:
                yield f"{name(item)}: port {port['name']} does not say its appProtocol"
            if item["spec"].get("clusterIP") == "None" and port["port"] not in (50051, 6379, 16379, 26379):
                yield f"{name(item)}: is headless, so its port must be the target port"
    for item, template in templates:
        pod = template["spec"]
        if pod["serviceAccountName"] not in accounts:
            yield f"{name(item)}: no ServiceAccount {pod['serviceAccountName']}"
        if item["kind"] == "StatefulSet" and item["spec"]["serviceName"] not in services:
            yield f"{name(item)}: no Service {item['spec']['serviceName']}"
        for volume in pod.get("volumes", []):
            if "secret" in volume and volume["secret"]["secretName"] not in secrets:
                yield f"{name(item)}: nothing makes the Secret {volume['secret']['secretName']}"
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                yield f"{name(item)}: no ConfigMap {volume['configMap']['name']}"
        for box in pod["containers"]:
            known = set()
            for variable in box.get("env", []):
                for used in re.findall(r"\$\((\w+)\)", variable.get("value") or ""):
                    if used not in known:
                        yield f"{name(item)}: {variable['name']} uses $({used}), which comes after it or is not there"
                known.add(variable["name"])
    for item in of_kind(overlay, "HorizontalPodAutoscaler"):
        target = item["spec"]["scaleTargetRef"]
        if f"{target['kind']} {target['name']}" not in workloads:
            yield f"{name(item)}: no {target['kind']} {target['name']}"
    for item in of_kind(overlay, "PodDisruptionBudget"):
        if not any(selects(item["spec"]["selector"]["matchLabels"], template) for _, template in templates):
            yield f"{name(item)} selects no pod"
    for item in of_kind(overlay, "AuthorizationPolicy"):
        for rule in item["spec"].get("rules", []):
            for source in rule.get("from", []):
                for principal in source["source"].get("principals", []):
                    parts = principal.split("/")
                    if parts[2] == "agent-system" and parts[4] not in accounts:
                        yield f"{name(item)}: no ServiceAccount for {principal}"
    external = {host for item in of_kind(overlay, "ServiceEntry") for host in item["spec"]["hosts"]}
    hosts = [(item, item["spec"]["host"]) for item in of_kind(overlay, "DestinationRule")]
    hosts += [
        (item, target["destination"]["host"])
        for item in of_kind(overlay, "VirtualService")
        for route in item["spec"]["http"]
        for target in route["route"]
    ]
    for item, host in hosts:
        if host not in external and host.removesuffix(".agent-system.svc.cluster.local") not in services:
            yield f"{name(item)}: no Service for {host}"
    gates = {host for item in of_kind(overlay, "Gateway") for server in item["spec"]["servers"] for host in server["hosts"]}
    for item in of_kind(overlay, "VirtualService"):
        for host in item["spec"]["hosts"]:
            if host not in gates:
                yield f"{name(item)}: no Gateway takes {host}"


@check
def who_may_call_whom_is_the_same_for_the_network_and_the_mesh():
    """An edge that one of the two forgets fails at night; one that one of them adds is a hole."""
    problems = []
    for overlay in OVERLAYS[1:]:
        templates = {template["metadata"]["labels"]["app.kubernetes.io/name"]: template for _, template in pods(overlay)}
        mesh, network = set(), set()
        for item in of_kind(overlay, "AuthorizationPolicy"):
            chosen = item["spec"].get("selector", {}).get("matchLabels", {})
            for rule in item["spec"].get("rules", []):
                ports = rule["to"][0]["operation"]["ports"]
                callers = [
                    "gateway" if principal.split("/")[2] == "istio-system" else principal.split("/")[4]
                    for source in rule.get("from", [])
                    for principal in source["source"]["principals"]
                ]
                mesh |= {
                    (caller, called, int(port))
                    for called, template in templates.items()
                    if selects(chosen, template)
                    for caller in callers
                    for port in ports
                    if port == "50051"
                }
        for item in of_kind(overlay, "NetworkPolicy"):
            for rule in item["spec"].get("ingress", []):
                if not any(port["port"] == 50051 for port in rule.get("ports", [])):
                    continue
                for called in chosen_by(item["spec"]["podSelector"], templates):
                    for peer in rule["from"]:
                        if "ipBlock" in peer:
                            continue  # other regions; who they are, the mesh says
                        callers = chosen_by(peer["podSelector"], templates) if "podSelector" in peer else ["gateway"]
                        network |= {(caller, called, 50051) for caller in callers}
        way_out = set()
        for item in of_kind(overlay, "NetworkPolicy"):
            for rule in item["spec"].get("egress", []):
                if any(port["port"] == 50051 for port in rule.get("ports", [])):
                    for caller in chosen_by(item["spec"]["podSelector"], templates):
                        for peer in rule["to"]:
                            if "ipBlock" in peer:
                                continue
                            way_out |= {(caller, called, 50051) for called in chosen_by(peer["podSelector"], templates)}
        inner = {edge for edge in network if edge[0] != "gateway"}
        problems += [f"{overlay}: {edge} is allowed by the mesh, and not by the network" for edge in sorted(mesh - network)]
        problems += [f"{overlay}: {edge} is allowed by the network, and not by the mesh" for edge in sorted(network - mesh)]
        problems += [f"{overlay}: {edge} may come in, and not go out" for edge in sorted(inner - way_out)]
        problems += [f"{overlay}: {edge} may go out, and not come in" for edge in sorted(way_out - inner)]
    refuse(problems)


def chosen_by(selector, templates):
    labels = selector.get("matchLabels", {})
    found = []
    for called, template in templates.items():
        fits = selects(labels, template)
        for rule in selector.get("matchExpressions", []):
            fits = fits and template["metadata"]["labels"].get(rule["key"]) in rule["values"]
        if fits:
            found.append(called)
    return found


@check
def pods_are_sized_probed_scraped_and_confined_as_promised():
    problems = []
    for overlay, (least, memory, processor) in NUMBERS.items():
        for item, template in pods(overlay):
            pod, labels = template["spec"], template["metadata"]["labels"]
            service = labels["app.kubernetes.io/name"]
            if service not in SERVICES:
                continue
            say = f"{overlay}: {name(item)}: "
            box = pod["containers"][0]
            probes = {
                "startupProbe": ("/startup", 30, 10, 10),
                "livenessProbe": ("/health", 60, 30, None),
                "readinessProbe": ("/ready", 30, 10, None),
            }
            for probe, (path, delay, period, failures) in probes.items():
                has = box[probe]
                got = (has["httpGet"]["path"], has["httpGet"]["port"], has["initialDelaySeconds"], has["periodSeconds"])
                if got != (path, "health", delay, period) or failures not in (None, has.get("failureThreshold")):
                    problems.append(f"{say}{probe} is {has}")
            ports = {port["name"]: port["containerPort"] for port in box["ports"]}
            if ports != {"data": 50051, "health": 8080, "metrics": 9090}:
                problems.append(f"{say}ports are {ports}")
            notes = template["metadata"]["annotations"]
            if notes.get("prometheus.io/port") != str(ports["metrics"]) or notes.get("prometheus.io/scrape") != "true":
                problems.append(f"{say}the scrape annotation does not name the metrics port")
            limits = box["resources"]["limits"]
            if (limits["memory"], limits["cpu"]) != (memory, processor):
                problems.append(f"{say}limits are {limits}, expected {memory} and {processor}")
            if pod.get("enableServiceLinks") is not False:
                problems.append(f"{say}enableServiceLinks is not false")
            if "replicas" in item["spec"]:
                problems.append(f"{say}says replicas, and would undo the autoscaler at each apply")
        for item in of_kind(overlay, "HorizontalPodAutoscaler"):
            spec = item["spec"]
            if (spec["minReplicas"], spec["maxReplicas"]) != (least, 20):
                problems.append(f"{overlay}: {name(item)}: {spec['minReplicas']} to {spec['maxReplicas']}")
        scaled = {item["spec"]["scaleTargetRef"]["name"] for item in of_kind(overlay, "HorizontalPodAutoscaler")}
        if scaled != set(SERVICES):
            problems.append(f"{overlay}: autoscalers for {sorted(scaled)}")
        redis = [item for item in of_kind(overlay, "StatefulSet") if item["metadata"]["name"] == "redis-cluster"]
        if [item["spec"]["replicas"] for item in redis] != [6]:
            problems.append(f"{overlay}: Redis Cluster does not have three primaries and three replicas")
    refuse(problems)


@check
def rollouts_go_by_the_promised_steps_and_are_judged():
    rollout = next(item for item in rendered("production") if item["kind"] == "Rollout")
    canary = rollout["spec"]["strategy"]["canary"]
    went = [step.get("setWeight") or (step.get("pause") or {}).get("duration") for step in canary["steps"]]
    if [step for step in went if step] != [10, "2m", 20, "2m", 50, "5m", 100]:
        raise Refused(f"the canary goes by {went}")
    route = next(item for item in of_kind("production", "VirtualService") if item["metadata"]["name"] == "router")
    for entry in route["spec"]["http"]:
        hosts = [target["destination"]["host"].split(".")[0] for target in entry["route"]]
        if hosts != [canary["stableService"], canary["canaryService"]] or [target["weight"] for target in entry["route"]] != [100, 0]:
            raise Refused(f"VirtualService router: route {entry['name']} leads to {hosts}")
    if [entry["name"] for entry in route["spec"]["http"]] != canary["trafficRouting"]["istio"]["virtualService"]["routes"]:
        raise Refused("the rollout names other routes than the VirtualService has")
    template = next(item for item in rendered("production") if item["kind"] == "AnalysisTemplate")
    for metric in template["spec"]["metrics"]:
        if (metric["interval"], metric["failureLimit"]) != ("30s", 3):
            raise Refused(f"analysis {metric['name']}: every {metric['interval']}, failure limit {metric['failureLimit']}")
    conditions = " ".join(metric["successCondition"] for metric in template["spec"]["metrics"])
    if ">= 0.95" not in conditions or "<= 0.5" not in conditions:
        raise Refused(f"the analysis does not hold success to 0.95 and p99 to 0.5 s: {conditions}")


SECRETS = {"auth.conf": "requirepass of-the-test\nmasterauth of-the-test\n", "password": "of-the-test"}


@check
def the_store_of_all_regions_fails_over_and_back():
    """The very scripts of the component, with a Redis and a Sentinel for each of three regions on this machine."""
    scripts, running = FOLDER / "components/redis-regions", {}
    stores, sentinels = [free_address() for _ in range(3)], [free_address() for _ in range(3)]
    with tempfile.TemporaryDirectory() as folder:
        for file, content in SECRETS.items():
            pathlib.Path(folder, file).write_text(content)

        def environment(own):
            return {
                **os.environ, "SECRETS": folder, "DATA": str(pathlib.Path(folder, own)), "SELF": own,
                "FIRST_PRIMARY": stores[0], "SENTINELS": " ".join(sentinels),
            }

        def start(script, own):
            data = pathlib.Path(folder, own)
            data.mkdir(exist_ok=True)
            log = open(data / "log", "ab")
            running[own] = subprocess.Popen(
                ["sh", scripts / script], env=environment(own), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )

        def stop(address):
            process = running.pop(address)
            process.kill()
            process.wait()

        def redis(address, *command):
            host, port = address.split(":")
            done = subprocess.run(
                ["redis-cli", "-h", host, "-p", port, *command], env={**os.environ, "REDISCLI_AUTH": "of-the-test"},
                capture_output=True, text=True, timeout=10,
            )
            return done.stdout

        def primary(sentinel):
            return ":".join(redis(sentinel, "sentinel", "get-master-addr-by-name", "runs").split())

        def leads_with_two(sentinel):
            told = redis(sentinel, "sentinel", "master", "runs")
            return primary(sentinel) == other and "num-slaves\n2" in told and "flags\nmaster\n" in told

        def follows(replica, other):
            told = redis(replica, "info", "replication")
            return f"master_port:{other.split(':')[1]}" in told and "master_link_status:up" in told

        try:
            # The first region works before any other is there, also when it is started again.
            for _ in range(2):
                start("start-redis.sh", stores[0])
                wait_for("the first region to take writes alone", lambda: redis(stores[0], "set", "first", "kept").strip() == "OK")
                stop(stores[0])
            for address in stores:
                start("start-redis.sh", address)
            for address in sentinels:
                start("start-sentinel.sh", address)
            wait_for("both replicas to follow", lambda: follows(stores[1], stores[0]) and follows(stores[2], stores[0]))
            wait_for("Sentinels to know each other", lambda: all("num-other-sentinels\n2" in redis(at, "sentinel", "master", "runs") for at in sentinels))
            wait_for("both replicas to be known", lambda: all("num-slaves\n2" in redis(at, "sentinel", "master", "runs") for at in sentinels))
            wait_for("it to need one of the others", lambda: redis(stores[0], "config", "get", "min-replicas-to-write").split()[-1:] == ["1"])
            if [redis(at, "get", "first").strip() for at in stores] != ["kept"] * 3:
                raise Refused("what the first region wrote alone did not come to the others")
            redis(stores[0], "set", "run", "kept")
            if redis(stores[0], "wait", "2", "5000").strip() != "2":
                raise Refused("the replicas of the other regions do not acknowledge a write")
            # The primary region is gone, its Sentinel with it.
            for address in (stores[0], sentinels[0]):
                stop(address)
            other = wait_for("another primary", lambda: next((at for at in stores[1:] if primary(sentinels[1]) == at), None))
            wait_for("it to take writes", lambda: redis(other, "set", "later", "kept").strip() == "OK")
            if redis(other, "get", "run").strip() != "kept":
                raise Refused("what both replicas had acknowledged is lost after the failover")
            # It comes back, as a replica of who is the primary now.
            start("start-redis.sh", stores[0])
            start("start-sentinel.sh", sentinels[0])
            wait_for("the old primary to follow the new one", lambda: follows(stores[0], other))
            if redis(stores[0], "get", "later").strip() != "kept":
                raise Refused("the old primary does not have what was written while it was away")
            # And leads again.
            wait_for("the Sentinels to know it as a replica", lambda: all(leads_with_two(at) for at in sentinels))
            led = subprocess.run(["sh", scripts / "lead.sh"], env=environment(stores[0]), capture_output=True, text=True, timeout=180)
            if led.returncode or any(primary(at) != stores[0] for at in sentinels[:1]):
                raise Refused(f"the region that came back does not lead: {led.stdout}{led.stderr}")
            wait_for("it to take writes", lambda: redis(stores[0], "set", "last", "kept").strip() == "OK")
            wait_for("the other to follow it", lambda: follows(other, stores[0]))
            if redis(stores[0], "get", "later").strip() != "kept":
                raise Refused("failing back lost what was written before")
            # It had others once: so without them it takes nothing, also when it is started again.
            for address in (*stores[1:], *sentinels[1:]):
                stop(address)
            wait_for("it to take no writes", lambda: "NOREPLICAS" in redis(stores[0], "set", "lost", "yes"))
            stop(stores[0])
            start("start-redis.sh", stores[0])
            wait_for("it to be there", lambda: redis(stores[0], "get", "last").strip() == "kept")
            if "NOREPLICAS" not in redis(stores[0], "set", "lost", "yes"):
                raise Refused("a primary that the others may have replaced takes writes")
        finally:
            for process in running.values():
                process.kill()
                process.wait()


def free_address():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def wait_for(what, look):
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        threading.Event().wait(0.1)
    raise Refused(f"waited 180 s in vain for {what}")


@check
def no_secret_is_written_down():
    problems = []
    for overlay in OVERLAYS:
        problems += [f"{overlay}: {name(item)} holds a value" for item in of_kind(overlay, "Secret") if item.get("data") or item.get("stringData")]
    refuse(problems)


@check
def our_programs_take_the_settings_of_every_overlay():
    problems = []
    for overlay in OVERLAYS:
        maps = {item["metadata"]["name"]: item["data"] for item in of_kind(overlay, "ConfigMap")}
        secrets = secrets_of(overlay)
        for item, template in pods(overlay):
            box = template["spec"]["containers"][0]
            if box["name"] != "service":
                continue
            program = box["image"].split("/")[-1].split(":")[0]
            environment = dict(maps[box["envFrom"][0]["configMapRef"]["name"]])
            for variable in box["env"]:
                value = variable["value"] if "value" in variable else "some-pod-0"
                environment[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda used: environment[used.group(1)], value)
            volume = next(volume for volume in template["spec"]["volumes"] if volume["name"] == "redis")
            files = secrets[volume["secret"]["secretName"]] if "secret" in volume else maps[volume["configMap"]["name"]]
            problem = refused_settings(program, environment, box["args"], files)
            if problem:
                problems.append(f"{overlay}: {name(item)}: {problem}")
    refuse(problems)


def refused_settings(program, environment, arguments, files):
    """What a program says against its settings; `arguments` may name one of the `files` of a mounted folder."""
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            with open(f"{folder}/{file}", "w") as out:
                out.write(re.sub(r"\{\{.*?\}\}", "password", content))
        arguments = [f"{folder}/{argument.rsplit('/', 1)[1]}" if argument.startswith("/") else argument for argument in arguments]
        done = subprocess.run(
            [str(ROOT / "target/debug" / program), *arguments, "--print-config"],
            env={"PATH": os.environ["PATH"], **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )
        if done.returncode:
            return done.stderr.strip()
        if any(secret in done.stdout for secret in ("password", files.get("password", "password"))):
            return "--print-config shows the password of Redis"
    return None
