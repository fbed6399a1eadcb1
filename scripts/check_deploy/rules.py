"""What the files of deploy/ promise each other and the service, as far as reading them shows it.

Run from the root of the repository by scripts/check-deploy. Prints one line a fact, `ok|failed|skipped`, name and words
with tabs between them, and ends with 1 if one failed. Needs PyYAML.
"""
import configparser
import ipaddress
import re
import sys
from pathlib import Path

import yaml

MANIFESTS = Path("deploy/kubernetes")
UNITS = [Path("deploy/systemd/mainstay.service"), Path("deploy/systemd/mainstay@.service")]
SAMPLES = {"compose": Path("deploy/compose.env.example"), "systemd": Path("deploy/systemd/environment.example")}
# PostgreSQL's default for superuser_reserved_connections.
RESERVED = 3
# One listens, beside the pool (crates/mainstay/src/store/limits.rs).
BESIDE_POOL = 1


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|min|m|h|)", str(text)).groups()
    return int(number) * {"ms": 0.001, "s": 1, "": 1, "m": 60, "min": 60, "h": 3600}[unit]


class Settings:
    """docs/configuration.md: which settings there are, their defaults, which are secret."""

    def __init__(self):
        page = Path("docs/configuration.md").read_text()
        self.known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", page))
        rows = re.findall(r"^\| `([A-Z0-9_]+)` \| ([^|]+) \| ([^|]+) \|", page, re.M)
        self.secret = {name for name, kind, _ in rows if kind.strip() == "secret"}
        self.default = {name: match[1] for name, _, words in rows if (match := re.match(r"`([^`]*)`", words.strip()))}

    def of(self, environment, name):
        return environment.get(name) or self.default[name]


def is_instance(service):
    """A service of compose.yaml that runs Mainstay."""
    return "mainstay" in str(service.get("image"))


def sample(path):
    """The names and values of a file of settings, as systemd and compose read it."""
    lines = [line.split("=", 1) for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: value.strip("'") for name, value in lines}


def unit(path):
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str
    parser.read(path)
    return parser["Service"]


def environments():
    """Of each way to deploy, the settings that it gives to the service."""
    compose = yaml.safe_load(Path("deploy/compose.yaml").read_text())
    deployment = next(part for part in manifests() if part["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    image = dict(re.findall(r"^(?:ENV|   ) +([A-Z_]+)=(\S+)", Path("Dockerfile").read_text(), re.M))
    instance = next(service for service in compose["services"].values() if is_instance(service))
    return {
        "image": image,
        "compose": image | {name: str(value) for name, value in instance["environment"].items()},
        "kubernetes": image | {entry["name"]: entry.get("value") for entry in container["env"]},
        "systemd": {"DATA_DIR": "/var/lib/mainstay"} | sample(SAMPLES["systemd"]),
    }


def manifests():
    files = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())["resources"]
    return [part for file in files for part in yaml.safe_load_all((MANIFESTS / file).read_text())]


class Rules:
    def __init__(self):
        self.settings = Settings()
        self.problems = []

    def must(self, holds, words):
        if not holds:
            self.problems.append(words)

    def arithmetic(self, where, environment, instances, max_connections=100):
        pool = int(self.settings.of(environment, "DB_POOL_MAX"))
        wanted, usable = instances * (pool + BESIDE_POOL), max_connections - RESERVED
        self.must(wanted <= usable, f"{where}: {instances} x ({pool} + {BESIDE_POOL}) = {wanted} connections, more than {usable}")

    def grace(self, where, environment, given):
        needed = self.ending(environment)
        self.must(seconds(given) > needed, f"{where}: {given} is not longer than DRAIN_DELAY and SHUTDOWN_TIMEOUT, {needed:g} s")

    def ending(self, environment):
        return sum(seconds(self.settings.of(environment, name)) for name in ("DRAIN_DELAY", "SHUTDOWN_TIMEOUT"))

    def names(self):
        """Every name that is given to the service is a setting."""
        given = {name: where for where, environment in environments().items() for name in environment}
        given |= {name: str(path) for path in UNITS for name in re.findall(r"\b([A-Z][A-Z_]+)=", unit_environment(path))}
        given |= {name: "Dockerfile" for name in re.findall(r"(?<!\\)\$\{([A-Z_]+):-", Path("Dockerfile").read_text())}
        for name, where in sorted(given.items()):
            self.must(name in self.settings.known, f"{where}: {name} is not in docs/configuration.md")
        text = re.sub(r"^\s*#.*", "", Path("deploy/compose.yaml").read_text(), flags=re.M)
        asked = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", text))
        listed = set(sample(SAMPLES["compose"]))
        self.must(asked == listed, f"compose.yaml and compose.env.example differ in {', '.join(sorted(asked ^ listed))}")
        return f"{len(given)} settings, all in docs/configuration.md"

    def secrets(self):
        """No secret has a value here."""
        for where, environment in environments().items():
            for name in self.settings.secret & set(environment):
                value = re.sub(r"\$\{[A-Z_]+:[?-]\}", "", environment[name] or "")
                self.must(value in ("", "redis://:@redis:6379"), f"{where}: {name} has a value")
        for path in SAMPLES.values():
            for name, value in sample(path).items():
                self.must(not (value and re.search("PASSWORD|SECRET", name)), f"{path}: {name} has a value")
        text = Path("deploy/compose.yaml").read_text()
        for name in re.findall(r"\$\{([A-Z_]*(?:PASSWORD|SECRET)):-\}", text):
            self.must(name == "ADMIN_PASSWORD", f"compose.yaml: {name} may be empty")
        return "none has a value or a default in a file"

    def dockerfile(self):
        text = Path("Dockerfile").read_text()
        workspace = Path("Cargo.toml").read_text()
        version = re.search(r'^rust-version = "(.*)"', workspace, re.M)[1]
        members = re.findall(r'"([^"]+)"', re.search(r"^members = \[(.*)\]", workspace, re.M)[1])
        self.must(f"FROM rust:{version}-" in text, f"the image of Rust is not rust:{version}, the rust-version of Cargo.toml")
        user = re.findall(r"^USER (\S+)", text, re.M)
        self.must(user and re.fullmatch(r"[1-9]\d*:[1-9]\d*", user[-1]), "USER is not a number other than 0")
        self.must("HEALTHCHECK" in text and "/health/ready" in text, "there is no HEALTHCHECK on /health/ready")
        ignore = Path(".dockerignore").read_text().splitlines()
        allowed = {line[1:] for line in ignore if line.startswith("!")}
        needed = {member.split("/")[0] for member in members} | {"Cargo.toml", "Cargo.lock"}
        needed |= {word for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.M) for word in line.split() if word != "."}
        self.must("*" in ignore, ".dockerignore is no list of what is allowed")
        for name in sorted(needed - allowed):
            self.must(False, f".dockerignore leaves out {name}")
        for name in sorted(allowed):
            self.must(Path(name).exists(), f".dockerignore allows {name}, which is not there")
        return f"rust {version}, user {user[-1] if user else '?'}, the context holds {len(allowed)} names"

    def compose(self):
        compose = yaml.safe_load(Path("deploy/compose.yaml").read_text())
        services = compose["services"]
        instances = {name: service for name, service in services.items() if is_instance(service)}
        environment = environments()["compose"]
        self.must(int(environment["INSTANCES"]) == len(instances), f"INSTANCES is {environment['INSTANCES']}, there are {len(instances)}")
        most = int(re.search(r"max_connections=(\d+)", " ".join(services["postgres"]["command"]))[1])
        self.arithmetic("compose", environment, len(instances), most)
        for name, service in instances.items():
            self.grace(f"compose, {name}", environment, service["stop_grace_period"])
            self.must(service.get("read_only") and service["cap_drop"] == ["ALL"], f"{name} may write or has capabilities")
        for name, service in services.items():
            self.must("healthcheck" in service or name in instances, f"{name} has no health check")
            for port in service.get("ports", []):
                default = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", port)
                self.must(default.startswith("127.0.0.1:"), f"{name} is published at {port}")
        front = compose["networks"]["front"]["ipam"]["config"][0]
        balancer = services["balancer"]["networks"]["front"]["ipv4_address"]
        self.must(environment["TRUSTED_PROXIES"] == f"{balancer}/32", "TRUSTED_PROXIES is not the balancer's address")
        address = ipaddress.ip_address(balancer)
        self.must(address in ipaddress.ip_network(front["subnet"]), "the balancer's address is not in its network")
        self.must(address not in ipaddress.ip_network(front["ip_range"]), "a container could take the balancer's address")
        for name, other in services.items():
            shared = "front" in other["networks"] and name != "balancer"
            self.must(not shared or name in instances, f"{name} can be reached from the balancer's network")
        return f"{len(instances)} instances, their pools fit, the balancer alone is trusted"

    def haproxy(self):
        text = re.sub(r"^\s*#.*", "", Path("deploy/haproxy.cfg").read_text(), flags=re.M)
        services = yaml.safe_load(Path("deploy/compose.yaml").read_text())["services"]
        servers = re.findall(r"^\s*server \S+ (\S+):(\d+)", text, re.M)
        instances = {name for name, service in services.items() if is_instance(service)}
        self.must({host for host, _ in servers} == instances, "the servers are not the instances of compose.yaml")
        self.must({port for _, port in servers} == {self.settings.default["PORT"]}, "a server has another port than the service")
        self.must("uri /health/ready" in text and "http-check expect status 200" in text, "readiness is not asked for")
        self.must("option abortonclose" in text.split("\nfrontend")[0], "`option abortonclose` is not in `defaults`: it would do nothing")
        self.must("option forwardfor" in text, "X-Forwarded-For is not set")
        self.must(re.search(r"disable-l7-retry unless METH_GET or METH_OPTIONS$", text, re.M), "requests that change something may be repeated")
        interval, fast = (seconds(re.search(rf"\b{word} (\S+)", text)[1]) for word in ("inter", "fastinter"))
        fall, connect = int(re.search(r"\bfall (\d+)", text)[1]), seconds(re.search(r"timeout connect (\S+)", text)[1])
        noticed = interval + (fall - 1) * fast
        for where in ("compose", "systemd"):
            delay = seconds(self.settings.of(environments()[where], "DRAIN_DELAY"))
            self.must(noticed + connect < delay, f"{where}: a drain is noticed after {noticed + connect:g} s, DRAIN_DELAY is {delay:g} s")
        server, request = seconds(re.search(r"timeout server (\S+)", text)[1]), seconds(self.settings.default["REQUEST_TIMEOUT"])
        self.must(server > request, "`timeout server` is not longer than REQUEST_TIMEOUT")
        return f"a drain is noticed within {noticed:g} s and a check, nothing that changes something is repeated"

    def systemd(self):
        environment = environments()["systemd"]
        services = [unit(path) for path in UNITS]
        for path, service in zip(UNITS, services):
            self.grace(path.name, environment, service["TimeoutStopSec"])
            wanted = {"Type": "notify", "NotifyAccess": "main", "ExecReload": "/bin/kill -USR2 $MAINPID"}
            wanted |= {"KillSignal": "SIGTERM", "RestartPreventExitStatus": "78", "ProtectSystem": "strict"}
            for key, value in wanted.items():
                self.must(service.get(key) == value, f"{path.name}: {key} is not {value}")
        own = {"StateDirectory", "WorkingDirectory", "Environment"}
        plain, template = ({key: value for key, value in service.items() if key not in own} for service in services)
        self.must(plain == template, "mainstay.service and mainstay@.service differ in more than their folders and ports")
        self.arithmetic("systemd", environment, int(environment["INSTANCES"]))
        return f"stop after {services[0]['TimeoutStopSec']} s, both units have the same limits"

    def kubernetes(self):
        parts = {part["kind"]: part for part in manifests()}
        deployment, environment = parts["Deployment"], environments()["kubernetes"]
        spec = deployment["spec"]
        pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
        container = pod["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        selectors = {
            "Deployment": spec["selector"]["matchLabels"],
            "Service": parts["Service"]["spec"]["selector"],
            "PodDisruptionBudget": parts["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
            "NetworkPolicy": parts["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        }
        selectors |= {f"spread by {rule['topologyKey']}": rule["labelSelector"]["matchLabels"] for rule in pod["topologySpreadConstraints"]}
        for where, selector in selectors.items():
            self.must(selector and selector.items() <= labels.items(), f"{where} does not select the pods")
        target = parts["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
        self.must((target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"]), "the autoscaler has another target")
        self.must("replicas" not in spec, "`replicas` and an autoscaler are set")
        self.probes(container, ports)
        for port in parts["Service"]["spec"]["ports"]:
            self.must(port["targetPort"] in ports, f"the service leads to {port['targetPort']}, which is no port")
        for rule in parts["NetworkPolicy"]["spec"]["ingress"]:
            self.must(rule["from"] and all(port["port"] in ports for port in rule["ports"]), "the network policy names no port of the pods")
        management = self.settings.of(environment, "MANAGEMENT_ADDR").rsplit(":", 1)[1]
        scraped = spec["template"]["metadata"]["annotations"]["prometheus.io/port"]
        self.must(management == scraped == str(ports["management"]), "the management port is not the one that is scraped")
        self.must(self.settings.of(environment, "PORT") == str(ports["http"]), "PORT is not the container's")
        self.rollout(spec, parts["HorizontalPodAutoscaler"]["spec"], environment)
        self.sandbox(pod, container, environment)
        return f"{len(parts)} objects; selectors, ports, probes, times and sums agree"

    def probes(self, container, ports):
        for probe, path in {"startupProbe": "/health/live", "livenessProbe": "/health/live", "readinessProbe": "/health/ready"}.items():
            asked = container[probe]["httpGet"]
            self.must(asked["path"] == path, f"{probe} asks {asked['path']}")
            self.must(asked["port"] in ports, f"{probe} asks the port {asked['port']}, which is not there")

    def rollout(self, spec, scaler, environment):
        pod, strategy = spec["template"]["spec"], spec["strategy"]["rollingUpdate"]
        self.grace("kubernetes", environment, pod["terminationGracePeriodSeconds"])
        self.must(spec["minReadySeconds"] >= self.ending(environment), "minReadySeconds is shorter than a drain: two may drain at once")
        # One drains while the next is added.
        most = scaler["maxReplicas"] + strategy["maxSurge"] + 1
        self.must(int(environment["INSTANCES"]) >= most, f"INSTANCES is {environment['INSTANCES']}, a rollout has up to {most}")
        self.arithmetic("kubernetes", environment, int(environment["INSTANCES"]))
        self.must(strategy["maxUnavailable"] == 0, "a rollout takes a pod away before it adds one")

    def sandbox(self, pod, container, environment):
        """What the `restricted` pod security standard asks for, and a folder to write to."""
        context, own = pod["securityContext"], container["securityContext"]
        self.must(context["runAsNonRoot"] and context["seccompProfile"]["type"] == "RuntimeDefault", "not restricted: pod")
        self.must(own["allowPrivilegeEscalation"] is False and own["capabilities"]["drop"] == ["ALL"], "not restricted: container")
        self.must(own["readOnlyRootFilesystem"], "the root file system can be written to")
        self.must(environment["DATA_DIR"] in {mount["mountPath"] for mount in container["volumeMounts"]}, "DATA_DIR is not mounted")
        self.must({mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}, "mounts and volumes differ")
        self.must(pod["enableServiceLinks"] is False, "names of services could become settings")


def unit_environment(path):
    return "\n".join(re.findall(r"^Environment=(.*)", path.read_text(), re.M))


def main():
    rules, failed = Rules(), False
    for name in ("names", "secrets", "dockerfile", "compose", "haproxy", "systemd", "kubernetes"):
        rules.problems = []
        words = getattr(rules, name)()
        failed |= bool(rules.problems)
        for problem in rules.problems:
            print("failed", name, problem, sep="\t")
        if not rules.problems:
            print("ok", name, words, sep="\t")
    sys.exit(failed)


if __name__ == "__main__":
    main()
