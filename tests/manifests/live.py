"""Holds what dashboards, rules, autoscalers and the canary ask for against a live system.

    tests/manifests/live.py

Starts `muster dev`, gives it work that also fails, and lets a real Prometheus scrape it under the rules of deploy/prometheus. Then:
every selector of every expression must have series, and every label that an expression or a legend names must be a label of
one of them. Last, a target is taken away, and the alert must arrive at a webhook by way of a real Alertmanager.

What cannot come from a fleet on one machine is listed below, each with its reason; metrics of ours among it must at least be in
a table of a `metrics.rs`, and another test must find them where they come about.
"""

import concurrent.futures
import http.server
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import kubernetes  # noqa: E402
import monitoring  # noqa: E402
from ground import DEPLOY, ROOT, TOOLS, tool  # noqa: E402

PATIENCE = 180

# Exporters that are not ours, with the labels that they document.
FOREIGN = {
    # kube-state-metrics
    "kube_pod_container_status_restarts_total": {"namespace", "pod", "container"},
    "kube_pod_container_resource_limits": {"namespace", "pod", "container", "resource"},
    "kube_horizontalpodautoscaler_status_desired_replicas": {"namespace", "horizontalpodautoscaler"},
    "kube_horizontalpodautoscaler_status_current_replicas": {"namespace", "horizontalpodautoscaler"},
    # the kubelet
    "kubelet_volume_stats_used_bytes": {"namespace", "persistentvolumeclaim"},
    "kubelet_volume_stats_capacity_bytes": {"namespace", "persistentvolumeclaim"},
    # redis_exporter
    "redis_up": {"instance", "pod"},
    "redis_memory_used_bytes": {"instance", "pod"},
}
# Labels that a scrape gives its targets; the three configurations do, and nothing else does.
FROM_SCRAPES = {"job", "instance", "service", "namespace", "pod", "node", "rollouts_pod_template_hash"}
# Ours, but not on one machine within a minute.
RARE = {
    "router_hedged_calls_total": "hedging is off unless it is asked for",
    "router_stalled_streams_total": "a caller has to leave a stream unread for minutes",
    "router_moved_attempts_total": "an instance has to die in the middle of a call",
    "router_breaker_openings_total": "an instance has to fail time and again",
    "muster_registry_expirations_total": "a lease has to end without a goodbye, after 90 s",
    "agent_push_notifications_total": "a caller has to ask for them, with a server of its own",
    "agent_messages_refused_total": "an agent has to be full",
    "workflow_takeovers_total": "engines have to share a store",
    "workflow_lease_renewals_total": "engines have to share a store",
}
# Series that are there in good health only with another value of these labels.
RARE_VALUES = {
    ("muster_registry_heartbeats_total", "outcome", "refused"),
    ("http_requests_total", "status_code", "401|403|429"),
    ("http_requests_total", "status_code", "5.."),
    ("agent_tasks_total", "state", "failed|rejected"),
    ("background_runs_total", "outcome", "failure"),
}

FAILING = """
document: {dsl: '1.0.3', namespace: checks, name: fails, version: '1.0.0'}
do:
  - stop:
      raise: {error: {type: https://example.com/errors/full, status: 503, title: Full}}
"""
TOOLS_DOCUMENT = """
document: {dsl: '1.0.3', namespace: checks, name: tools, version: '1.0.0'}
do:
  - ask:
      call: mcp
      with:
        method: tools/call
        parameters: {name: add, arguments: {a: 1, b: 2}}
        transport: {http: {endpoint: 'http://127.0.0.1:PORT/mcp'}}
"""
WAITING = """
document: {dsl: '1.0.3', namespace: checks, name: waits, version: '1.0.0'}
do:
  - rest: {wait: {minutes: 5}}
"""


def main():
    with tempfile.TemporaryDirectory() as folder, Processes(pathlib.Path(folder)) as processes:
        folder = pathlib.Path(folder)
        fleet, port = processes.fleet(), free_port()
        processes.start("mcp", TOOLS / "python", ROOT / "tests/interop/mcp_server.py", port, MCP_TEST_LOG=str(folder / "mcp.calls"))
        webhook = Webhook()
        prometheus = processes.prometheus(fleet, webhook)
        wait_for("the server of tools", lambda: connects(port))
        wait_for("every target to be scraped", lambda: len(ask(prometheus, 'up{job="muster"} == 1')) == len(fleet["services"]))
        # Twice: a rate is the growth of a series that was seen before.
        work(fleet, folder, port)
        worked = time.time()
        wait_for("every target to be scraped after the work", lambda: scraped_since(prometheus, worked, len(fleet["services"])))
        work(fleet, folder, port)
        problems = wait_for_none(lambda: asked_for_what_is_not_there(prometheus))
        problems += rare_ones_that_are_no_metrics() + autoscaled_by_what_is_not_there(prometheus)
        if not problems:
            problems = delivered(processes, fleet, webhook)
        print("\n".join(problems) if problems else "every metric and label that is asked for is there, and a fired alert arrived")
        print(f"live: {0 if problems else 1} passed, {1 if problems else 0} failed")
        return 1 if problems else 0


class Processes:
    """What was started, ended with us."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()

    def start(self, name, *command, **environment):
        log = open(self.folder / f"{name}.log", "wb")
        self.running[name] = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env={**os.environ, **environment}, cwd=self.folder,
        )

    def log(self, name):
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def fleet(self):
        """One `muster dev`; where its services are."""
        self.start(
            "dev", ROOT / "target/debug/muster", "dev", "--ports", "any", "--data-dir", self.folder / "data", "--tls", "-o", "json",
            "--set", "engine.max_concurrent_workflows=2", "--set", "registry.health_check_interval=1",
            # What is looked for every ten minutes, and spans, which nobody takes.
            "--set", "engine.background.performance.every_seconds=1", "--set", "engine.background.collection.every_seconds=1",
            "--set", f"telemetry.otlp.endpoint=http://127.0.0.1:{free_port()}",
        )

        def ready():
            lines = [line for line in self.log("dev").splitlines() if line.startswith("{") and '"ready":true' in line]
            return json.loads(lines[0]) if lines else None

        return wait_for("muster dev", ready, lambda: self.log("dev"))

    def prometheus(self, fleet, webhook):
        """Prometheus and Alertmanager with our rules and routes; only quicker, since nobody here has five minutes."""
        folder, address, alerts = self.folder, f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        (folder / "rules").mkdir()
        for path in monitoring.RULES:
            text = re.sub(r"^( +for:) .*$", r"\1 1s", path.read_text(), flags=re.MULTILINE)
            (folder / "rules" / path.name).write_text(text.replace("interval: 15s", "interval: 1s"))
        config = yaml.safe_load((DEPLOY / "prometheus/prometheus-laptop.yml").read_text())
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alerts]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (folder / "targets").mkdir()
        targets = [
            {"targets": [entry["metrics"].split("//")[1].split("/")[0]], "labels": {"service": service}}
            for service, entry in fleet["services"].items()
        ]
        expected = json.loads((DEPLOY / "prometheus/targets/laptop.json").read_text())
        assert {entry["labels"]["service"] for entry in expected} == set(fleet["services"]), "laptop.json names other services"
        (folder / "targets/laptop.json").write_text(json.dumps(targets))
        routes = (DEPLOY / "alertmanager/alertmanager-development.yml").read_text()
        (folder / "alertmanager.yml").write_text(re.sub(r"url: .*", f"url: {webhook.url}", routes))
        self.start(
            "alertmanager", tool("prometheus-alertmanager"), f"--config.file={folder}/alertmanager.yml",
            f"--storage.path={folder}/alerts", f"--web.listen-address={alerts}", "--cluster.listen-address=",
        )
        self.start(
            "prometheus", tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series",
            f"--web.listen-address={address}", "--rules.alert.resend-delay=1s",
        )
        wait_for("Alertmanager", lambda: answers(f"http://{alerts}/-/ready"), lambda: self.log("alertmanager"))
        wait_for("Prometheus", lambda: answers(f"http://{address}/-/ready"), lambda: self.log("prometheus"))
        return f"http://{address}"


class Webhook:
    """Takes what Alertmanager sends."""

    def __init__(self):
        self.received = queue.Queue()
        received = self.received

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                received.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/alerts"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def answers(url, security=None):
    try:
        return urllib.request.urlopen(url, timeout=5, context=security).status == 200
    except OSError:
        return False


def wait_for(what, look, account=lambda: ""):
    """Looks until there is something to see."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        threading.Event().wait(0.1)
    raise SystemExit(f"waited {PATIENCE} s in vain for {what}\n{account()[-3000:]}")


def wait_for_none(look):
    """Looks until nothing is wrong any more, or for as long as scrapes and rules may take."""
    deadline = time.monotonic() + 20
    while True:
        problems = look()
        if not problems or time.monotonic() > deadline:
            return problems
        threading.Event().wait(0.5)


def work(fleet, folder, port):
    """What users do all day, with what goes wrong now and then."""
    places = {name: fleet["services"][name]["url"] for name in ("registry", "router", "workflow-engine")}
    environment = {
        **os.environ,
        "MUSTER_REGISTRY_URL": places["registry"],
        "MUSTER_ROUTER_URL": places["router"],
        "MUSTER_ENGINE_URL": places["workflow-engine"],
        "MUSTER_CERTIFICATES": str(folder / "data/certificates"),
    }
    for name, text in (("fails", FAILING), ("tools", TOOLS_DOCUMENT.replace("PORT", str(port))), ("waits", WAITING)):
        (folder / f"{name}.yaml").write_text(text)
    examples = ROOT / "services/muster/examples"
    commands = [["send", "--agent", agent, "hello"] for agent in kubernetes.SERVICES[3:]]
    rated = {"skill": "customer_inquiry", "question": "How does the router choose?", "satisfaction": 4, "elapsed_minutes": 2}
    commands += [
        ["send", "--agent", "customer-service", "--data", json.dumps(rated)],
        ["send", "--skill", "weather_forecasting", "Seattle 2014-03-01"],
        ["send", "--skill", "weather_forecasting", "--stream", "Seattle 2014-03-01"],
        ["send", "--agent", "not-there", "hello"],
        ["inbox", "enqueue", "--skill", "weather_forecasting", "Seattle 2014-03-01"],
        ["inbox", "enqueue", "--skill", "not_there_either", "--ttl", "1s", "hello"],
        ["broadcast", "--skill", "weather_forecasting", "Seattle 2014-03-01"],
        ["agents", "list"],
        ["workflow", "run", f"{examples}/trip.yaml", "--input", f"@{examples}/trip.json", "--wait"],
        ["workflow", "run", f"{examples}/incident.yaml", "--input", f"@{examples}/incident.json", "--wait"],
        ["workflow", "run", f"{folder}/fails.yaml", "--wait"],
        ["workflow", "run", f"{folder}/tools.yaml", "--wait"],
        ["workflow", "run", f"{folder}/waits.yaml"],
    ]

    def command(arguments):
        subprocess.run(
            [str(ROOT / "target/debug/muster"), *arguments], env=environment, timeout=PATIENCE,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )

    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(command, commands))
    certificates = folder / "data/certificates"
    security = ssl.create_default_context(cafile=certificates / "bundle.pem")
    # Who a service is, its SPIFFE id says, and not its host.
    security.check_hostname = False
    security.load_cert_chain(certificates / "muster.pem", certificates / "muster-key.pem")
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    answers(f"{places['registry']}/v1/instances?skills=weather_forecasting", security)
    # A path that leads nowhere, as scanners ask for: an error of theirs. And one without a certificate.
    for place in places.values():
        answers(f"{place}/not/there", security)
        answers(f"{place}/not/there", stranger)


def api(prometheus, path, **parameters):
    url = f"{prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)["data"]


def ask(prometheus, query):
    return api(prometheus, "query", query=query)["result"]


def scraped_since(prometheus, moment, targets):
    """Whether so many targets were scraped after a moment, in seconds since 1970."""
    # Of a selector alone: of what is computed, it is the time of the query.
    scrapes = ask(prometheus, 'timestamp(up{job="muster"})')
    return sum(float(scrape["value"][1]) > moment for scrape in scrapes) == targets


SELECTOR = re.compile(r"(?<![\w:$\"])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\w)(?!\s*\()")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
WORDS = {"by", "on", "or", "and", "unless", "without", "ignoring", "offset", "bool", "group_left", "group_right", "inf", "nan"}


def parts(expression):
    """The selectors of an expression, and the labels that it groups by."""
    grouped = {label for group in re.findall(r"(?:by|on)\s*\(([^)]*)\)", expression) for label in re.findall(r"\w+", group)}
    rest = re.sub(r"\b(by|on|without|ignoring)\s*\([^)]*\)", " ", expression)
    rest = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", rest)
    found = []
    for name, matchers in SELECTOR.findall(rest):
        if name.lower() not in WORDS:
            found.append((name, MATCHER.findall(matchers or "")))
    return found, grouped - {"le"}


def legends():
    """Labels that legends and annotations show, by the expression beside them."""
    for name in monitoring.DASHBOARDS:
        dashboard = json.loads((DEPLOY / f"grafana/dashboards/{name}.json").read_text())
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                labels = set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"]))
                yield f"{name}: {panel['title']}", target["expr"].replace("$service", ".*"), labels
    for alert in monitoring.alerts():
        texts = " ".join(alert["annotations"].values())
        yield alert["alert"], alert["expr"], set(re.findall(r"\$labels\.(\w+)", texts))


def asked_for_what_is_not_there(prometheus):
    """Selectors without series, and labels that no series has."""
    known = {}

    def series(name, matchers):
        """Labels of the series of a selector; empty where there are none."""
        matchers = [(label, how, value) for label, how, value in matchers if label != "rollouts_pod_template_hash"]
        text = name + "{" + ",".join(f'{label}{how}"{value}"' for label, how, value in matchers) + "}"
        if text not in known:
            known[text] = {label for entry in api(prometheus, "series", **{"match[]": text}) for label in entry}
        return known[text]

    problems = []
    for where, expression, labels in [(where, text, set()) for where, text in monitoring.expressions()] + list(legends()):
        selectors, grouped = parts(expression)
        has = set(FROM_SCRAPES)
        for name, matchers in selectors:
            if name in FOREIGN:
                has |= FOREIGN[name]
                wrong = {label for label, _, _ in matchers} - FOREIGN[name] - FROM_SCRAPES
                problems += [f"{where}: {name} has no label {label}" for label in sorted(wrong)]
                continue
            if name == "ALERTS" or name in RARE:
                has |= labels | grouped
                continue
            strict = [matcher for matcher in matchers if (name, matcher[0], matcher[2]) not in RARE_VALUES]
            # What must not be there may be all there is.
            strict = [matcher for matcher in strict if matcher[1] in ("=", "=~")]
            found = series(name, strict)
            if not found:
                problems.append(f"{where}: nothing is named {name} with {strict}")
                continue
            has |= found
            wrong = {label for label, _, _ in matchers} - found - FROM_SCRAPES
            problems += [f"{where}: {name} has no label {label}" for label in sorted(wrong)]
        problems += [f"{where}: no selector has the label {label}" for label in sorted((labels | grouped) - has)]
    return sorted(set(problems))


def rare_ones_that_are_no_metrics():
    """Metrics of ours that are excused here, and that no crate defines, or that no test finds where they come about."""
    folders = [ROOT / "libs", ROOT / "services"]
    sources = "".join(path.read_text() for folder in folders for path in folder.rglob("metrics.rs"))
    tests = [path for folder in folders for path in folder.glob("**/tests/*/*.rs")] + list((ROOT / "tests/tests").rglob("*.rs"))
    tests = "".join(path.read_text() for path in tests)
    problems = [f"{name}: is excused here, and defined in no metrics.rs" for name in RARE if f'"{name}"' not in sources]
    return problems + [f"{name}: is excused here, and no test asks for it" for name in RARE if name not in tests]


def autoscaled_by_what_is_not_there(prometheus):
    names = {
        metric["pods"]["metric"]["name"]
        for item in kubernetes.of_kind("production", "HorizontalPodAutoscaler")
        for metric in item["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    return [f"the autoscaler asks for {name}, which is not there" for name in sorted(names) if not ask(prometheus, name)]


def delivered(processes, fleet, webhook):
    """Takes a target away and waits for the alert at the webhook."""
    gone = processes.running.pop("dev")
    gone.send_signal(signal.SIGTERM)
    gone.wait(30)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            message = webhook.received.get(timeout=1)
        except queue.Empty:
            continue
        for alert in message["alerts"]:
            if alert["labels"]["alertname"] == "AgentServiceDown" and alert["status"] == "firing":
                service, runbook = alert["labels"].get("service"), alert["annotations"].get("runbook")
                if service in fleet["services"] and runbook:
                    return []
                return [f"the alert arrived without its service or runbook: {alert}"]
    return [f"no alert arrived\n{processes.log('prometheus')[-1500:]}\n{processes.log('alertmanager')[-1500:]}"]


if __name__ == "__main__":
    assert shutil.which("promtool"), "Prometheus is missing; tests/run installs it"
    sys.exit(main())
