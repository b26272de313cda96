"""Prometheus, Alertmanager, Grafana and the collector: their own tools, and what holds between them."""

import json
import re
import tempfile

import yaml

from ground import DEPLOY, ROOT, Refused, read, refuse, register, run

CHECKS = []
check = register(CHECKS)

PROMETHEUS = DEPLOY / "prometheus"
RULES = [PROMETHEUS / "rules/recording.yml", PROMETHEUS / "rules/alerts.yml"]
OPERATOR_RULES = DEPLOY / "kubernetes/components/monitoring/rules.yaml"
DASHBOARDS = ["agent_system_overview", "workflow_performance", "a2a_communication", "resource_utilization", "error_tracking"]


def alerts():
    """Every alerting rule."""
    return [rule for group in read(RULES[1])[0]["groups"] for rule in group["rules"] if "alert" in rule]


@check
def rules_are_good_and_each_alert_fires_and_stays_quiet_when_it_must():
    run("promtool", "check", "rules", *RULES)
    run("promtool", "test", "rules", PROMETHEUS / "tests/alerts.yml")
    tested = {"fires": set(), "stays quiet": set()}
    for test in read(PROMETHEUS / "tests/alerts.yml")[0]["tests"]:
        for expression in test.get("promql_expr_test", []):
            named = re.match(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}$', expression["expr"])
            if named:
                tested["fires" if expression["exp_samples"] else "stays quiet"].add(named.group(1))
    refuse(
        f"{alert['alert']}: no test in deploy/prometheus/tests shows that it {what}"
        for alert in alerts()
        for what, names in tested.items()
        # The one that always fires is never quiet.
        if alert["alert"] not in names and (alert["alert"], what) != ("Watchdog", "stays quiet")
    )


@check
def every_alert_says_how_bad_it_is_and_what_to_do():
    readme = (ROOT / "README.md").read_text()
    problems = []
    for alert in alerts():
        name, notes = alert["alert"], alert.get("annotations", {})
        problems += [f"{name}: has no annotation '{key}'" for key in ("summary", "description", "runbook") if not notes.get(key)]
        if alert["labels"].get("severity") not in ("critical", "warning", "none"):
            problems.append(f"{name}: severity is not one that a route of Alertmanager knows")
        if f"`{name}`" not in readme:
            problems.append(f"{name}: is not in the README's table of alerts")
    refuse(problems)


@check
def prometheus_reads_its_configurations():
    for path in sorted(PROMETHEUS.glob("prometheus*.yml")):
        config = read(path)[0]
        # Debian's Prometheus is built without the discovery of Kubernetes; all else of the file is checked.
        text = yaml.safe_dump(without_kubernetes(config))
        with tempfile.NamedTemporaryFile("w", suffix=".yml", dir=PROMETHEUS) as copy:
            copy.write(text)
            copy.flush()
            run("promtool", "check", "config", copy.name)
        if config["global"]["scrape_interval"] != "15s":
            raise Refused(f"{path.name}: the rates of the rules are made for a scrape every 15 s")
    adapter = read(DEPLOY / "kubernetes/components/monitoring/adapter.yaml")[0]["data"]["config.yaml"]
    if "active_workflows" not in adapter:
        raise Refused("adapter.yaml does not bring the metric that the autoscaler of the engines asks for")


def without_kubernetes(node):
    """The same configuration with a fixed target in place of each discovery in Kubernetes."""
    if isinstance(node, dict):
        changed = {key: without_kubernetes(value) for key, value in node.items() if key != "kubernetes_sd_configs"}
        if "kubernetes_sd_configs" in node:
            roles = {entry["role"] for entry in node["kubernetes_sd_configs"]}
            if not roles <= {"pod", "node", "endpoints", "service", "endpointslice", "ingress"}:
                raise Refused(f"kubernetes_sd_configs: unknown role in {roles}")
            changed["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
        changed.pop("tls_config", None)
        changed.pop("authorization", None)
        return changed
    if isinstance(node, list):
        return [without_kubernetes(entry) for entry in node]
    return node


@check
def alertmanager_sends_each_alert_where_it_should_go():
    for name in ("alertmanager.yml", "alertmanager-development.yml"):
        run("amtool", "check-config", DEPLOY / "alertmanager" / name)
    receivers = {"critical": "agent-team-on-call", "warning": "agent-team", "none": "nobody"}
    for alert in alerts():
        severity = alert["labels"]["severity"]
        answer = run(
            "amtool", "config", "routes", "test",
            f"--config.file={DEPLOY}/alertmanager/alertmanager.yml", f"alertname={alert['alert']}", f"severity={severity}",
        )
        if answer.split()[-1] != receivers[severity] and receivers[severity] not in answer.split():
            raise Refused(f"{alert['alert']} goes to {answer.strip()}, expected {receivers[severity]}")
    route = read(DEPLOY / "alertmanager/alertmanager.yml")[0]["route"]
    expected = {"group_by": ["alertname", "severity"], "group_wait": "30s", "group_interval": "5m", "repeat_interval": "12h"}
    refuse(f"alertmanager.yml: {key} is not {value}" for key, value in expected.items() if route.get(key) != value)


@check
def dashboards_are_provisioned_and_ask_for_what_there_is():
    folder = DEPLOY / "grafana/dashboards"
    found = sorted(path.stem for path in folder.glob("*.json"))
    if found != sorted(DASHBOARDS):
        raise Refused(f"deploy/grafana/dashboards holds {found}, expected {sorted(DASHBOARDS)}")
    sources = {source["uid"] for source in read(DEPLOY / "grafana/provisioning/datasources/prometheus.yml")[0]["datasources"]}
    problems = []
    for name in DASHBOARDS:
        dashboard = json.loads((folder / f"{name}.json").read_text())
        if dashboard["uid"] != name:
            problems.append(f"{name}: its uid is {dashboard['uid']}")
        ids = [panel["id"] for panel in dashboard["panels"]]
        if len(set(ids)) != len(ids):
            problems.append(f"{name}: two panels have the same id")
        for panel in dashboard["panels"]:
            if panel["datasource"]["uid"] not in sources:
                problems.append(f"{name}: '{panel['title']}' asks a source that is not provisioned")
            if not panel.get("description"):
                problems.append(f"{name}: '{panel['title']}' does not say what it shows")
    refuse(problems)
    # promtool reads expressions only as rules.
    rules = [{"record": f"a:b{number}:c", "expr": text} for number, (_, text) in enumerate(expressions())]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}, file)
        file.flush()
        run("promtool", "check", "rules", "--lint=none", file.name)


def expressions():
    """Every expression that somebody asks Prometheus for: where it stands, and its text with variables filled in."""
    found = []
    for path in RULES:
        for group in read(path)[0]["groups"]:
            found += [(f"{path.name}: {rule.get('alert') or rule['record']}", rule["expr"]) for rule in group["rules"]]
    for name in DASHBOARDS:
        dashboard = json.loads((DEPLOY / f"grafana/dashboards/{name}.json").read_text())
        for panel in dashboard["panels"]:
            found += [(f"{name}: {panel['title']}", target["expr"]) for target in panel["targets"]]
        found += [(f"{name}: annotation", note["expr"]) for note in dashboard["annotations"]["list"]]
    for document in read(DEPLOY / "kubernetes/components/canary/analysis.yaml"):
        for metric in document["spec"]["metrics"]:
            found.append((f"canary: {metric['name']}", metric["provider"]["prometheus"]["query"]))
    return [(where, re.sub(r"\{\{args\.hash\}\}", "abc", text).replace("$service", ".*")) for where, text in found]


@check
def the_operator_gets_the_same_rules():
    ours = [group for path in RULES for group in read(path)[0]["groups"]]
    if read(OPERATOR_RULES)[0]["spec"]["groups"] != ours:
        raise Refused("components/monitoring/rules.yaml differs from deploy/prometheus/rules; write it anew with --write-rules")


def write_rules():
    """Writes the PrometheusRule with the text of the rule files, comments included."""
    head = OPERATOR_RULES.read_text().split("  groups:\n")[0] + "  groups:\n"
    bodies = [path.read_text().split("groups:\n", 1)[1] for path in RULES]
    lines = "".join(bodies).splitlines(keepends=True)
    OPERATOR_RULES.write_text(head + "".join("  " + line if line.strip() else line for line in lines))


@check
def the_collector_passes_on_what_it_takes_in():
    config = read(DEPLOY / "otel/collector.yml")[0]
    problems = []
    for name, pipeline in config["service"]["pipelines"].items():
        for kind in ("receivers", "processors", "exporters"):
            problems += [f"pipeline {name}: {part} is not among the {kind}" for part in pipeline[kind] if part not in config[kind]]
        if pipeline["processors"][0] != "memory_limiter":
            problems.append(f"pipeline {name}: memory_limiter must be first, or nothing bounds what comes in")
    refuse(problems)
