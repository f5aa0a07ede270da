"""Checks deploy/ and docs/ against the program and against each other.

Owns what no public tool can know: that the metrics, settings, links and names in these files exist. It
reads files and changes none; it needs no network.

    check.py PART...       metrics settings durations compose kubernetes dashboard alerts links
    check.py environments  prints what each deployment starts an edge with, as JSON, for the e2e test
"""

import json
import re
import sys
from pathlib import Path

import promql_parser
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

# Metrics that are not Signal's.
FOREIGN_METRICS = {"up"}

# Seconds that an edge may take to end after its window; see docs/upgrade.md.
DRAIN_GRACE_SECONDS = 5

problems = []


def expect(condition, problem):
    """Notes a problem unless the condition holds."""
    if not condition:
        problems.append(problem)


def read(path):
    """The text of a file below deploy/."""
    return (DEPLOY / path).read_text()


def documents(path):
    """The YAML documents of a file below deploy/."""
    return [document for document in yaml.safe_load_all(read(path)) if document]


def manifests():
    """All Kubernetes resources, by kind and name."""
    files = documents("kubernetes/kustomization.yaml")[0]["resources"]
    resources = [resource for file in files for resource in documents(f"kubernetes/{file}")]
    return {(item["kind"], item["metadata"]["name"]): item for item in resources}


# === Queries ===


def queries():
    """Every PromQL expression of deploy/, with where it is."""
    dashboard = json.loads(read("grafana/dashboard.json"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']!r}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            yield f"variable {variable['name']!r}", selector[1]
    for group in documents("prometheus/alerts.yaml")[0]["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]
    for rule in documents("prometheus/adapter-rules.yaml")[0]["rules"]["custom"]:
        yield "adapter", rule["seriesQuery"]
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
        yield "adapter", query.replace("<<.LabelMatchers>>", 'pod="x"')


def selectors(expression):
    """The selectors of an expression that has been parsed."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield expression.vector_selector
    elif isinstance(expression, promql_parser.BinaryExpr):
        yield from selectors(expression.lhs)
        yield from selectors(expression.rhs)
    elif isinstance(expression, promql_parser.Call):
        for argument in expression.args:
            yield from selectors(argument)
    elif not isinstance(expression, (promql_parser.NumberLiteral, promql_parser.StringLiteral)):
        yield from selectors(expression.expr)


def listed_metrics():
    """The metrics of docs/metrics.md with their labels; a histogram has three names."""
    listed = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if not line.startswith("| `"):
            continue
        names, kind = line.split("|")[1:3]
        for name, labels in re.findall(r"`(\w+)(?:\{([\w, ]+)\})?`", names):
            labels = set(re.findall(r"\w+", labels))
            if kind.strip() == "histogram":
                listed[f"{name}_bucket"] = labels | {"le"}
                listed[f"{name}_sum"] = listed[f"{name}_count"] = labels
            else:
                listed[name] = labels
    return listed


def check_metrics():
    """Dashboard, alerts and autoscaler name metrics and labels that exist."""
    listed = listed_metrics()
    expect(listed, "docs/metrics.md lists no metrics")
    # What Prometheus and the operator add to every series.
    added = {"job", "instance", "namespace", "pod"}
    count = 0
    for where, query in queries():
        query = query.replace("$__rate_interval", "1m").replace("$__range", "1h")
        for selector in selectors(promql_parser.parse(query)):
            count += 1
            name = selector.name
            expect(
                name in listed or name in FOREIGN_METRICS,
                f"{where}: {name} is not in docs/metrics.md",
            )
            labels = {matcher.name for matcher in selector.matchers.matchers} - added
            unknown = labels - listed.get(name, set()) - {"__name__"}
            expect(not unknown, f"{where}: {name} has no label {', '.join(sorted(unknown))}")
    expect(count > 0, "there are no queries")


# === Settings ===


def settings():
    """The settings that the program has."""
    table = (ROOT / "crates/signal-server/src/config/table.rs").read_text()
    return set(re.findall(r'"((?:SIGNAL|APP_ENV_WEBSOCKET_REDIS)_[A-Z_]+)"', table))


def environment_of_lines(text):
    """NAME=VALUE lines, as systemd reads them."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def environments():
    """What each way of deploying starts an edge with."""
    compose = documents("compose.yaml")[0]
    unit = re.findall(r"^Environment=(.*)$", read("systemd/signal.service"), re.MULTILINE)
    image = dict(re.findall(r"\b(SIGNAL_[A-Z_]+)=(\S+)", read("Dockerfile").split("ENV", 1)[1].split("EXPOSE")[0]))
    return {
        "compose": image | compose["x-edge"]["environment"],
        "compose.single": image
        | compose["x-edge"]["environment"]
        | documents("compose.single.yaml")[0]["x-edge"]["environment"],
        "kubernetes": image | manifests()["ConfigMap", "signal"]["data"],
        "systemd": environment_of_lines(read("systemd/signal.env"))
        | environment_of_lines("\n".join(unit)),
    }


def check_settings():
    """Deployments and documents name settings that exist."""
    known = settings()
    expect(known, "config/table.rs has no settings")
    for name, environment in environments().items():
        for setting, value in environment.items():
            expect(setting in known, f"{name}: {setting} is not a setting")
            expect(isinstance(value, str), f"{name}: {setting} is {value!r}, not a text")
    # Of Traefik's template, and of tests.
    own = {"SIGNAL_EDGES"}
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and "secrets" not in path.parts]
    for path in [*files, *(ROOT / "docs").glob("*.md")]:
        for setting in set(re.findall(r"\b(?:SIGNAL|APP_ENV_WEBSOCKET_REDIS)_[A-Z]+(?:_[A-Z]+)*\b", path.read_text())):
            expect(setting in known | own, f"{path.relative_to(ROOT)}: {setting} is not a setting")


# === Durations ===


def seconds(text):
    """The seconds of a duration such as 30s or 2m."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


def drain(environment):
    """The seconds that a drain takes with these settings."""
    delay = seconds(environment.get("SIGNAL_DRAIN_DELAY", "5s"))
    window = seconds(environment.get("SIGNAL_DRAIN_WINDOW", "30s"))
    return delay + window + DRAIN_GRACE_SECONDS


def check_durations():
    """Whatever stops an edge waits for its drain, and Traefik notices before the edge refuses."""
    edges = environments()
    stop = seconds(documents("compose.yaml")[0]["x-edge"]["stop_grace_period"])
    expect(stop >= drain(edges["compose"]), "compose.yaml: stop_grace_period is shorter than a drain")

    deployment = manifests()["Deployment", "signal"]["spec"]
    pod = deployment["template"]["spec"]
    before = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod["terminationGracePeriodSeconds"]
    whole = before + drain(edges["kubernetes"])
    expect(grace >= whole, "deployment.yaml: the grace period is shorter than preStop and drain")
    pace = deployment["minReadySeconds"]
    expect(pace >= whole - DRAIN_GRACE_SECONDS, "deployment.yaml: minReadySeconds is shorter than a drain")

    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", read("systemd/signal.service"), re.MULTILINE)[1])
    expect(stop >= drain(edges["systemd"]), "signal.service: TimeoutStopSec is shorter than a drain")

    services = documents("traefik/dynamic.yaml")[0]["http"]["services"]
    health = services["signal"]["loadBalancer"]["healthCheck"]
    notice = seconds(health["interval"]) + seconds(health["timeout"])
    for name in ("compose", "systemd"):
        delay = seconds(edges[name].get("SIGNAL_DRAIN_DELAY", "5s"))
        expect(2 * notice <= delay, f"{name}: Traefik notices a drain too late")


# === Compose ===


def check_compose():
    """What services use is declared, and what is mounted is there."""
    compose = documents("compose.yaml")[0]
    made = set(re.search(r"for name in (.*); do", read("secrets.sh"))[1].split())
    declared = compose["secrets"]
    expect(made == set(declared), "compose.yaml and secrets.sh name different secrets")
    for name, secret in declared.items():
        expect(secret["file"] == f"secrets/{name}", f"compose.yaml: secret {name} is elsewhere")
    edges = []
    for name, service in compose["services"].items():
        for secret in service.get("secrets", []):
            expect(secret in declared, f"compose.yaml: {name} uses an unknown secret {secret}")
        for network in service["networks"]:
            expect(network in compose["networks"], f"compose.yaml: no network {network}")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                expect((DEPLOY / source).exists(), f"compose.yaml: {source} is not there")
            else:
                expect(source in compose["volumes"], f"compose.yaml: no volume {source}")
        for setting, value in service.get("environment", {}).items():
            secret = Path(value).name
            if value.startswith("/run/secrets/"):
                expect(secret in service["secrets"], f"compose.yaml: {name} has no secret {secret}")
        if service["image"] == "signal":
            edges.append(name)
    routed = compose["services"]["traefik"]["environment"]["SIGNAL_EDGES"].split(",")
    expect(routed == [f"{edge}:3000" for edge in edges], "compose.yaml: Traefik routes to other edges")
    jobs = documents("prometheus/prometheus.yaml")[0]["scrape_configs"]
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    expect(scraped["signal"] == [f"{edge}:3001" for edge in edges], "prometheus.yaml: other edges")


    check_cluster(compose["services"])


def check_cluster(services):
    """The nodes of the Redis Cluster are those that it is made of, and the variant leaves them out."""
    addresses = {
        name: service["networks"]["bus"]["ipv4_address"]
        for name, service in services.items()
        if isinstance(service["networks"], dict)
    }
    nodes = [f"{address}:6379" for address in addresses.values()]
    expect(services["redis-cluster"]["command"] == nodes, "compose.yaml: the cluster has other nodes")
    seeds = environments()["compose"]["APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES"].split(",")
    expect({seed.split(":")[0] for seed in seeds} <= set(addresses), "compose.yaml: seeds elsewhere")
    single = documents("compose.single.yaml")[0]["services"]
    off = {name for name, service in single.items() if "profiles" in service}
    expect(off == {*addresses, "redis-cluster"}, "compose.single.yaml: the cluster is not switched off")
    edges = {name for name, service in services.items() if service["image"] == "signal"}
    expect(set(single) == off | edges | {"redis"}, "compose.single.yaml: other edges")


# === Kubernetes ===


def check_kubernetes():
    """Selectors, ports, secrets and references of the manifests meet."""
    folder = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    listed = set(documents("kubernetes/kustomization.yaml")[0]["resources"])
    expect(folder == listed, "kustomization.yaml does not list every manifest")
    resources = manifests()
    deployment = resources["Deployment", "signal"]["spec"]
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    labels = deployment["template"]["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings_of_pod = resources["ConfigMap", "signal"]["data"]
    for setting, port in (("SIGNAL_LISTEN", "clients"), ("SIGNAL_ADMIN_LISTEN", "admin")):
        expect(settings_of_pod[setting].endswith(f":{ports[port]}"), f"{setting}: not port {port}")

    def matches(selector, what):
        expect(selector.items() <= labels, f"{what} does not match the pods")

    matches(deployment["selector"]["matchLabels"], "the deployment")
    matches(resources["PodDisruptionBudget", "signal"]["spec"]["selector"]["matchLabels"], "the budget")
    matches(resources["NetworkPolicy", "signal"]["spec"]["podSelector"]["matchLabels"], "the policy")
    for (kind, name), resource in resources.items():
        if kind == "Service":
            matches(resource["spec"]["selector"], f"service {name}")
            for port in resource["spec"]["ports"]:
                expect(ports.get(port["targetPort"]) == port["port"], f"service {name}: no such port")
    for probe, path in (("readinessProbe", "/readyz"), ("livenessProbe", "/livez")):
        get = container[probe]["httpGet"]
        expect((get["path"], get["port"]) == (path, "clients"), f"{probe} asks for something else")

    monitor = resources["ServiceMonitor", "signal"]["spec"]
    admin = resources["Service", "signal-admin"]
    wanted = monitor["selector"]["matchLabels"].items()
    expect(wanted <= admin["metadata"]["labels"].items(), "the monitor does not match its service")
    expect(
        not wanted <= resources["Service", "signal"]["metadata"]["labels"].items(),
        "the monitor matches the clients' service as well",
    )
    ports_of_admin = {port["name"] for port in admin["spec"]["ports"]}
    expect(monitor["endpoints"][0]["port"] in ports_of_admin, "the monitor's port is not there")
    job = admin["metadata"]["labels"][monitor["jobLabel"]]
    expect(job == "signal", f"the monitor's job is {job}, the alerts' is signal")

    target = resources["HorizontalPodAutoscaler", "signal"]["spec"]["scaleTargetRef"]
    expect((target["kind"], target["name"]) in resources, "the autoscaler scales something else")
    rule = documents("prometheus/adapter-rules.yaml")[0]["rules"]["custom"][0]["name"]["as"]
    metrics = resources["HorizontalPodAutoscaler", "signal"]["spec"]["metrics"]
    asked = [metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"]
    expect(asked == [rule], "the autoscaler asks for a metric that the adapter does not make")

    route = resources["IngressRoute", "signal"]["spec"]["routes"][0]["services"][0]
    service = resources["Service", route["name"]]["spec"]
    expect(route["port"] in {port["name"] for port in service["ports"]}, "the route's port is not there")

    mount = container["volumeMounts"][0]["mountPath"]
    items = {f"{mount}/{item['path']}" for item in pod["volumes"][0]["secret"]["items"]}
    files = {value for name, value in settings_of_pod.items() if name.endswith("_FILE")}
    expect(items == files, "the secret's files and the settings that name them differ")


# === Dashboard and alerts ===


def check_dashboard():
    """Panels have an id, a place and a unit of their own."""
    dashboard = json.loads(read("grafana/dashboard.json"))
    ids, taken = set(), set()
    for panel in dashboard["panels"]:
        title = panel["title"]
        expect(panel["id"] not in ids, f"panel {title!r}: its id is taken")
        ids.add(panel["id"])
        place = panel["gridPos"]
        expect(place["x"] + place["w"] <= 24, f"panel {title!r} is off the grid")
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                expect((x, y) not in taken, f"panel {title!r} is on another")
                taken.add((x, y))
        if panel["type"] != "row":
            expect(panel["description"], f"panel {title!r} does not say what it means")
            expect(panel["datasource"]["uid"] == "${datasource}", f"panel {title!r}: data source")
            for target in panel["targets"]:
                expect('job="signal"' in target["expr"], f"panel {title!r}: any job's numbers")


def check_alerts():
    """Each alert says what to do, and where to read on."""
    for group in documents("prometheus/alerts.yaml")[0]["groups"]:
        for rule in group["rules"]:
            name, notes = rule["alert"], rule["annotations"]
            severity = rule["labels"]["severity"]
            expect(severity in {"critical", "warning", "info"}, f"{name}: severity {severity}")
            expect(notes["summary"] and notes["description"], f"{name} says too little")
            path, _, anchor = notes["runbook"].partition("#")
            expect(anchor in anchors(ROOT / path), f"{name}: no heading {anchor} in {path}")


# === Links ===


def anchors(path):
    """The anchors of a Markdown file's headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def check_links():
    """Links between documents lead somewhere."""
    for path in (ROOT / "docs").glob("*.md"):
        prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"https?:", link):
                continue
            file, _, anchor = link.partition("#")
            target = path if not file else (path.parent / file).resolve()
            where = f"{path.relative_to(ROOT)}: {link}"
            expect(target.exists(), f"{where}: no such file")
            if anchor and target.exists():
                expect(anchor in anchors(target), f"{where}: no such heading")
    # Files of deploy/ that are named in a document's text.
    for path in (ROOT / "docs").glob("*.md"):
        for name in re.findall(r"`(deploy/[\w./-]+)`", path.read_text()):
            made = name.startswith("deploy/secrets/")
            expect(made or (ROOT / name).exists(), f"{path.relative_to(ROOT)}: {name} is not there")


def main():
    """Runs the parts that are named."""
    parts = sys.argv[1:]
    if parts == ["environments"]:
        json.dump(environments(), sys.stdout, indent=2)
        return 0
    for part in parts:
        globals()[f"check_{part}"]()
    print("\n".join(problems))
    return 1 if problems or not parts else 0


if __name__ == "__main__":
    sys.exit(main())
