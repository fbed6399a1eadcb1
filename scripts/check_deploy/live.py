"""deploy/haproxy.cfg in front of three instances of the binary, on free ports of 127.0.0.1 and SQLite.

Run from the root of the repository by scripts/check-deploy with the binary and an empty folder. Tries what the
configuration promises: the client's address in the log, what is sent again and what is not, a drain without a failed
request, an instance that is killed. Prints lines as rules.py does. Takes about fifteen seconds.
"""
import collections
import datetime
import http.client
import http.server
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import rules

PUBLIC = "/api/products"
DRAIN_DELAY_S = 5
# One interval, one fast interval and two checks are 1.5 s (deploy/haproxy.cfg); the rest is for a busy machine. Less than the delay.
NOTICED_S = 4


class Failed(Exception):
    pass


def must(holds, words):
    if not holds:
        raise Failed(words)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(port, method="GET", path=PUBLIC, source="127.0.0.1", headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10, source_address=(source, 0))
    try:
        connection.request(method, path, body=b"{}" if method == "POST" else None, headers={"Content-Type": "application/json"} | (headers or {}))
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def wait_for(what, holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        must(time.monotonic() < end, f"{what}: not within {seconds} s")
        time.sleep(0.05)


def stamp(line):
    """The time of a line of the log, in seconds. Its fraction has as many digits as it needs."""
    whole, _, fraction = line["timestamp"].rstrip("Z").partition(".")
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def answers(port, path, status=200):
    try:
        return ask(port, path=path) == status
    except OSError:
        return False


class Instance:
    """The service, with the settings of a production behind a balancer."""

    def __init__(self, name, binary, folder):
        self.port, self.log = free_port(), folder / f"{name}.log"
        environment = {
            "APP_ENV": "production",
            "PORT": str(self.port),
            "MANAGEMENT_ADDR": "127.0.0.1:0",
            "DATA_DIR": str(folder / name),
            "JWT_SECRET": secrets.token_hex(32),
            "TRUSTED_PROXIES": "127.0.0.1/32",
            "RATE_LIMIT_MAX": "1000000000",
            "DRAIN_DELAY": f"{DRAIN_DELAY_S}s",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen([binary], env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def requests(self):
        return [line for line in self.lines() if line.get("path") == PUBLIC]


class Mute(http.server.BaseHTTPRequestHandler):
    """Says that it is ready, and hangs up on everything else without a word: an answer that was lost."""

    asked = collections.Counter()
    protocol_version = "HTTP/1.1"

    def handle_one_request(self):
        self.raw_requestline = self.rfile.readline()
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
        elif self.path == "/health/ready":
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            Mute.asked[self.command] += 1
            self.close_connection = True

    def log_message(self, *_):
        pass


class Load:
    """Clients that keep their connections: half of them read, half of them write."""

    def __init__(self, port, clients=8):
        self.port, self.going, self.seen, self.lock = port, True, collections.Counter(), threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=("POST" if n % 2 else "GET",)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, method):
        connection = None
        while self.going:
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request(method, PUBLIC, body=b"{}" if method == "POST" else None, headers={"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                outcome = answer.status
                if answer.getheader("connection") == "close":
                    connection = connection.close()
            except (OSError, http.client.HTTPException) as error:
                outcome, connection = type(error).__name__, None
            with self.lock:
                self.seen[method, outcome] += 1
            time.sleep(0.02)

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join()

    def count(self):
        with self.lock:
            return sum(self.seen.values())

    def failed(self):
        """Everything but 200 for a read and 401 for a stranger's write."""
        with self.lock:
            return {key: n for key, n in self.seen.items() if key not in (("GET", 200), ("POST", 401))}


class Balancer:
    """HAProxy with the configuration as it is, but for addresses and Docker's name server."""

    def __init__(self, folder, ports, extra):
        self.port = free_port()
        text = Path("deploy/haproxy.cfg").read_text()
        text = re.sub(r"^resolvers docker\n(?:    .*\n)+", "", text, flags=re.M).replace(" resolvers docker resolve-prefer ipv4", "")
        for number, port in enumerate(ports, start=1):
            text = text.replace(f"mainstay-{number}:3000", f"127.0.0.1:{port}")
        text = text.replace("bind :8080", f"bind 127.0.0.1:{self.port}", 1) + f"    server mute 127.0.0.1:{extra}\n"
        (folder / "haproxy.cfg").write_text(text)
        self.log = folder / "haproxy.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(["haproxy", "-db", "-f", folder / "haproxy.cfg"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def saw(self, server, state):
        return f"Server mainstay/{server} is {state}" in self.log.read_text()


def settings_are_accepted(binary, folder):
    """`mainstay config` reads what each way to deploy gives the service."""
    stand_in = {
        "DATABASE_URL": "postgres://mainstay:password@database/mainstay",
        "JWT_SECRET": secrets.token_hex(32),
        "SEAL_SECRET": secrets.token_hex(32),
        "SMTP_URL": "smtp://mail.example.com:587",
        "MAIL_FROM": "Example <no-reply@example.com>",
        "REDIS_URL": "redis://127.0.0.1:6379",
    }
    ways = rules.environments()
    for way, environment in ways.items():
        given = {name: re.sub(r"\$\{[A-Z_]+:?[?-]([^}]*)\}", r"\1", value or "") for name, value in environment.items()}
        given |= {name: value for name, value in stand_in.items() if name in environment}
        if way == "image":
            given["JWT_SECRET"] = stand_in["JWT_SECRET"]
        done = subprocess.run([binary, "config"], env=given, cwd=folder, capture_output=True, text=True)
        must(done.returncode == 0, f"{way}: {' '.join(done.stderr.split())}")
    return f"`mainstay config` takes those of {', '.join(ways)}"


def client_address(balancer, instances):
    """The client's own address is logged, whatever it says of itself and whichever way it comes."""
    lie = {"X-Forwarded-For": "192.0.2.66", "User-Agent": "check"}
    must(ask(balancer.port, source="127.0.0.9", headers=lie) == 200, "no answer")
    logged = lambda: [line["address"] for instance in instances for line in instance.requests() if line["address"] != "127.0.0.1"]
    wait_for("the client in a log", logged)
    must(logged() == ["127.0.0.9"], f"the log has {logged()} for the client 127.0.0.9")
    direct = instances[0]
    before = len(direct.requests())
    must(ask(direct.port, source="127.0.0.8", headers=lie) == 200, "no answer")
    wait_for("a log line", lambda: len(direct.requests()) > before)
    address = direct.requests()[-1]["address"]
    must(address == "127.0.0.8", f"a client that is no proxy became {address}")
    return "the log has the client's address behind the proxy, and no word of its own X-Forwarded-For"


def lost_answers(balancer):
    """A read whose answer is lost is sent again; a write is not."""
    for _ in range(12):
        must(ask(balancer.port) == 200, "a read was not sent again")
    must(Mute.asked["GET"] > 0, "no read met the instance that hangs up")
    statuses = collections.Counter(ask(balancer.port, "POST") for _ in range(12))
    must(statuses[502] == Mute.asked["POST"] > 0, f"writes: {dict(statuses)}, {Mute.asked['POST']} met the instance that hangs up")
    must(statuses[401] == 12 - statuses[502], f"writes: {dict(statuses)}")
    return f"{Mute.asked['GET']} reads without an answer were repeated elsewhere, {statuses[502]} writes were not"


def drain(balancer, instance):
    """SIGTERM under load: not one failed request, none for the instance once its drain is noticed, exit 0."""
    load = Load(balancer.port)
    try:
        wait_for("load", lambda: load.count() > 100)
        instance.process.send_signal(signal.SIGTERM)
        status = instance.process.wait(DRAIN_DELAY_S + 15)
        after = load.count()
        wait_for("load", lambda: load.count() > after + 100)
    finally:
        load.stop()
    must(status == 0, f"exit code {status}")
    must(not load.failed(), f"failed: {load.failed()}")
    ending = next(stamp(line) for line in instance.lines() if line["message"].startswith("ending:"))
    served = [stamp(line) - ending for line in instance.requests()]
    must(min(served) < 0 < max(served), "the instance served nothing before or nothing during its delay")
    must(max(served) < NOTICED_S, f"the last request came {max(served):.1f} s after SIGTERM")
    return f"{load.count()} requests, 0 failed; the last one for it came {max(served):.1f} s after SIGTERM, exit 0"


def kill(balancer, instance, name):
    """kill -9 under load: nothing fails but what was on its way, at most one request a client. HAProxy repeats a read that
    was not answered, but not one whose connection was reset."""
    load = Load(balancer.port)
    try:
        wait_for("load", lambda: load.count() > 100)
        instance.process.kill()
        wait_for(f"{name} is taken out", lambda: balancer.saw(name, "DOWN"), DRAIN_DELAY_S)
        lost, before = sum(load.failed().values()), load.count()
        wait_for("load", lambda: load.count() > before + 200)
    finally:
        load.stop()
    must(sum(load.failed().values()) == lost <= len(load.threads), f"failed: {load.failed()}")
    return f"{load.count()} requests, {lost} failed that were on their way, none once it is taken out"


def report(name, check, *arguments):
    started = time.monotonic()
    try:
        words = check(*arguments)
    except Failed as error:
        print("failed", name, error, sep="\t", flush=True)
        return False
    print("ok", name, words, f"{time.monotonic() - started:.1f} s", sep="\t", flush=True)
    return True


def main():
    # So that what was started is ended (`finally`) when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    binary, folder = os.path.realpath(sys.argv[1]), Path(sys.argv[2])
    processes = []
    try:
        if not report("settings", settings_are_accepted, binary, folder):
            return 1
        instances = []
        for name in ("one", "two", "three"):
            instances.append(Instance(name, binary, folder))
            processes.append(instances[-1].process)
        mute = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mute)
        mute.daemon_threads = True
        threading.Thread(target=mute.serve_forever, daemon=True).start()
        for instance in instances:
            wait_for("an instance", lambda: answers(instance.port, "/health/ready"))
        balancer = Balancer(folder, [instance.port for instance in instances], mute.server_port)
        processes.append(balancer.process)
        wait_for("HAProxy", lambda: answers(balancer.port, "/balancer"))
        good = report("lost answers", lost_answers, balancer)
        mute.shutdown()
        mute.server_close()
        wait_for("HAProxy", lambda: balancer.saw("mute", "DOWN"))
        good &= report("client address", client_address, balancer, instances)
        good &= report("drain", drain, balancer, instances[0])
        good &= report("kill -9", kill, balancer, instances[1], "mainstay-2")
        return 0 if good else 1
    except Failed as error:
        print("failed", "start", error, sep="\t")
        return 1
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
