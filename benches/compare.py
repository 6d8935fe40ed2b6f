#!/usr/bin/env python3
"""Side by side: nginx with one worker and goodgate with one thread, in interleaved rounds.

For each case it prints requests per second and CPU microseconds per request of the proxy process alone,
and the ratio of goodgate's CPU to nginx's. CPU time is what the kernel accounts to the process, so it
holds even while the machine is not quiet; requests per second do not.

Needs nginx and wrk. Everything listens on 127.0.0.1.

  cargo build --release --workspace --examples
  benches/compare.py [--rounds 5] [--seconds 3] [--case proxy_1k ...]

With --bare (the example `bare_pingora`) the proxy cases measure Pingora with nothing added as well.
With --before (another goodgate binary) the case `change` measures what a change costs: plain proxying by both,
without an access log and with one.
"""

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CONNECTIONS = 32
SIZES = {"1k": 1024, "64k": 65536}
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


class Process:
    def __init__(self, arguments, port, log):
        self.process = subprocess.Popen(arguments, stdout=log, stderr=log)
        self.port = port
        wait_for(port)

    @property
    def pid(self):
        return self.process.pid

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def nginx(folder, name, port, body, log):
    os.makedirs(f"{folder}/{name}", exist_ok=True)
    temporary = "".join(f"{kind}_temp_path {folder}/{name}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config = f"""daemon off; master_process off; worker_processes 1; pid {folder}/{name}/pid; error_log {folder}/{name}/error.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; sendfile on; tcp_nodelay on; {temporary} {body} }}"""
    path = f"{folder}/{name}/nginx.conf"
    with open(path, "w", encoding="utf8") as file:
        file.write(config)
    return Process([shutil.which("nginx") or "/usr/sbin/nginx", "-c", path, "-p", f"{folder}/{name}"], port, log)


def goodgate(binary, folder, port, backend, log, name="goodgate", access_log="off", caches="", health="fail_timeout: 1h"):
    os.makedirs(f"{folder}/{name}", exist_ok=True)
    path = f"{folder}/{name}/goodgate.yaml"
    with open(path, "w", encoding="utf8") as file:
        file.write(f"""server: {{ threads: 1 }}
listeners: [{{ address: "127.0.0.1:{port}" }}]
admin: {{ address: "127.0.0.1:{free_port()}" }}
access_log: {{ path: {access_log} }}
{caches}
upstreams:
  web: {{ backends: ["127.0.0.1:{backend}"], {health}, timeouts: {{ idle: 60s }} }}
routes:
  - {{ name: proxy, upstream: web }}
  - {{ name: hit, match: {{ path: /hit }}, upstream: web, cache: {{ mode: standard, ttl: {{ "200": 1h }} }} }}
  - {{ name: kept, match: {{ path: /kept }}, upstream: web, cache: fallback }}
  - {{ name: old, match: {{ path: /old }}, upstream: web, cache: {{ mode: standard, ttl: {{ "200": 1s }} }} }}
""")
    return Process([binary, "run", "--config", path], port, log)


def load(port, path, seconds):
    """Requests done and failed. With a script's name behind a blank the script chooses the paths."""
    path, *script = path.split(" ")
    out = subprocess.run(
        ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", *(f"-s{one}" for one in script), f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, check=True).stdout
    done = next(int(line.split()[0]) for line in out.splitlines() if "requests in" in line)
    failed = next((int(line.split(":")[1]) for line in out.splitlines() if "Non-2xx" in line), 0)
    return done, failed


def measure(process, path, seconds):
    before = cpu_seconds(process.pid)
    done, failed = load(process.port, path, seconds)
    micros = (cpu_seconds(process.pid) - before) * 1e6 / max(done, 1)
    if failed:
        sys.exit(f"{failed} of {done} requests for {path} failed")
    return micros, done / seconds


def rounds(count, seconds, contestants):
    """Interleaved: each round measures each contestant once."""
    results = {name: [] for name, _, _ in contestants}
    for _ in range(count):
        for name, process, path in contestants:
            results[name].append(measure(process, path, seconds))
    return {name: (statistics.median(m for m, _ in rows), statistics.median(r for _, r in rows)) for name, rows in results.items()}


def report(case, results, base, target):
    micros_base = results[base][0]
    for name, (micros, rate) in results.items():
        ratio = "" if name == base else f"   ratio {micros / micros_base:.2f} (target at most {target})"
        print(f"{case:12} {name:14} {micros:8.2f} us CPU/request {rate:10.0f} requests/s{ratio}", flush=True)


# Why every backend is of no use: what of it goodgate is told, and whether the process is gone or has a sign to fail.
OUTAGES = {
    "stale_down": ("fail_timeout: 1h", "gone"),
    "stale_refused": ("max_fails: 0", "gone"),
    "stale_503": ("max_fails: 0", "sick"),
}


def stale(case, options, folder, log, running):
    """An old copy in place of a failure, beside a hit of the same process: in fallback and in standard mode."""
    health, trouble = OUTAGES[case]
    port = free_port()
    sign = f"{folder}/{case}.sick"
    backend = nginx(folder, f"{case}-backend", port, f"""server {{ listen 127.0.0.1:{port}; root {folder}/root; etag off;
        location / {{ if (-f {sign}) {{ return 503; }} }} }}""", log)
    running.append(backend)
    gateway = goodgate(options.goodgate, folder, free_port(), port, log, case, health=health)
    running.append(gateway)
    for path in ("/hit/1k", "/kept/1k", "/old/1k"):
        load(gateway.port, path, 1)
    if trouble == "gone":
        backend.stop()
        running.remove(backend)
    else:
        with open(sign, "w", encoding="utf8"):
            pass
    time.sleep(2)
    for path in ("/kept/1k", "/old/1k"):
        load(gateway.port, path, 1)
    three = [("hit", gateway, "/hit/1k"), ("fallback", gateway, "/kept/1k"), ("standard", gateway, "/old/1k")]
    report(case, rounds(options.rounds, options.seconds, three), "hit", 1.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goodgate", default="target/release/goodgate")
    parser.add_argument("--bare", default="target/release/examples/bare_pingora")
    parser.add_argument("--before", help="a goodgate binary to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    cases = ["proxy_1k", "proxy_64k", "hit_1k", "hit_64k", "disk_1k", "disk_64k", "kept_1k", "change", *OUTAGES, "memory"]
    parser.add_argument("--case", action="append", choices=cases)
    options = parser.parse_args()
    wanted = options.case or cases
    folder = tempfile.mkdtemp(prefix="goodgate-bench-")
    log = open(f"{folder}/log", "w", encoding="utf8")
    running = []
    try:
        for name, size in SIZES.items():
            for place in ("hit", "kept", "old", "plain"):
                os.makedirs(f"{folder}/root/{place}", exist_ok=True)
                with open(f"{folder}/root/{place}/{name}", "wb") as file:
                    file.write(b"x" * size)
        os.chmod(folder, 0o755)
        ports = [free_port() for _ in range(4)]
        backend = nginx(folder, "backend", ports[0], f"server {{ listen 127.0.0.1:{ports[0]}; root {folder}/root; etag off; }}", log)
        running.append(backend)
        peer = nginx(folder, "peer", ports[1], f"""proxy_cache_path {folder}/peer/cache keys_zone=main:10m;
            upstream web {{ server 127.0.0.1:{ports[0]}; keepalive 64; keepalive_requests 100000000; }}
            server {{ listen 127.0.0.1:{ports[1]}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr;
              location / {{ proxy_pass http://web; }}
              location /hit {{ proxy_cache main; proxy_cache_valid 200 1h; proxy_pass http://web; }} }}""", log)
        running.append(peer)
        gateway = goodgate(options.goodgate, folder, ports[2], ports[0], log)
        running.append(gateway)
        bare = []
        if os.path.exists(options.bare):
            addresses = [f"127.0.0.1:{ports[3]}", f"127.0.0.1:{ports[0]}"]
            bare = [("bare pingora", Process([options.bare, *addresses], ports[3], log), None)]
            running.append(bare[0][1])
        for process in (peer, gateway):
            for path in ("/plain/1k", "/plain/64k", "/hit/1k", "/hit/64k"):
                load(process.port, path, 1)
        for size in ("1k", "64k"):
            if f"proxy_{size}" in wanted:
                path = f"/plain/{size}"
                all_three = [("nginx", peer, path), ("goodgate", gateway, path), *((n, p, path) for n, p, _ in bare)]
                report(f"proxy_{size}", rounds(options.rounds, options.seconds, all_three), "nginx", 1.6)
            if f"hit_{size}" in wanted:
                both = [("nginx", peer, f"/hit/{size}"), ("goodgate", gateway, f"/hit/{size}")]
                report(f"hit_{size}", rounds(options.rounds, options.seconds, both), "nginx", 1.0)
        for size, paths in (("1k", 10_000), ("64k", 500)):
            if f"disk_{size}" in wanted:
                # Many paths over little memory: each hit is read from the page cache, by nginx too.
                caches = f"caches: {{ main: {{ memory: 1MiB, disk: {{ path: {folder}/disk_{size}, size: 4GiB }} }} }}"
                disk = goodgate(options.goodgate, folder, free_port(), ports[0], log, f"disk_{size}", caches=caches)
                running.append(disk)
                script = f"{folder}/{size}.lua"
                with open(script, "w", encoding="utf8") as file:
                    file.write(f"""local n = 0
                        request = function() n = (n + 7919) % {paths}; return wrk.format("GET", "/hit/{size}?" .. n) end""")
                path = f"/hit/{size} {script}"
                for process in (peer, disk):
                    load(process.port, path, 3)
                report(f"disk_{size}", rounds(options.rounds, options.seconds, [("nginx", peer, path), ("goodgate", disk, path)]), "nginx", 1.4)
        if "kept_1k" in wanted:
            both = [("no cache", gateway, "/plain/1k"), ("last-good copy", gateway, "/kept/1k")]
            report("kept_1k", rounds(options.rounds, options.seconds, both), "no cache", "-")
        if "change" in wanted and options.before:
            for kind, target in (("off", "off"), ("on", "/dev/null")):
                pair = []
                for which, binary in (("before", options.before), ("after", options.goodgate)):
                    name = f"{which}-{kind}"
                    process = goodgate(binary, folder, free_port(), ports[0], log, name, target)
                    running.append(process)
                    load(process.port, "/plain/1k", 1)
                    pair.append((name, process, "/plain/1k"))
                report(f"log {kind}", rounds(options.rounds, options.seconds, pair), f"before-{kind}", 1.03)
        if "memory" in wanted:
            requests, marks = 0, {}
            for mark in (100_000, 1_000_000):
                while requests < mark:
                    requests += load(gateway.port, "/plain/1k", options.seconds)[0]
                marks[mark] = resident_kib(gateway.pid)
                print(f"memory       goodgate       {marks[mark]:8} KiB resident after {requests} more requests", flush=True)
        for case in OUTAGES:
            if case in wanted:
                stale(case, options, folder, log, running)
    finally:
        for process in running:
            process.stop()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
