#!/usr/bin/env python3
"""TLS towards clients beside nginx: CPU per kept request, handshakes per CPU second, memory per idle connection.

One certificate (P-256) for both, TLS 1.3, nginx with one worker and goodgate with one thread, interleaved rounds.
CPU is what the kernel accounts to the proxy process alone.

Needs nginx, wrk and openssl. Everything listens on 127.0.0.1.

  cargo build --release
  benches/tls.py [--rounds 5] [--seconds 3] [--idle 10000] [--case kept ...]
"""

import argparse
import os
import re
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import tempfile
import time

import compare

OK = b"HTTP/1.1 200"


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", f"{folder}/site.key", "-out", f"{folder}/site.crt"], check=True, capture_output=True)


def goodgate(binary, folder, ports, backend, log):
    path = f"{folder}/goodgate.yaml"
    with open(path, "w", encoding="utf8") as file:
        file.write(f"""server: {{ threads: 1 }}
listeners:
  - {{ address: "127.0.0.1:{ports[0]}", tls: {{ certificates: [{{ cert: site.crt, key: site.key }}] }} }}
  - {{ address: "127.0.0.1:{ports[1]}" }}
admin: {{ address: "127.0.0.1:{compare.free_port()}" }}
limits: {{ keepalive_timeout: 10m, max_requests_per_connection: 1000000000 }}
access_log: {{ path: off }}
upstreams: {{ web: ["127.0.0.1:{backend}"] }}
routes:
  - {{ upstream: web }}
  - {{ match: {{ path: /hit }}, upstream: web, cache: {{ mode: standard, ttl: {{ "200": 1h }} }} }}
""")
    return compare.Process([binary, "run", "--config", path], ports[0], log)


def kept(port, path, seconds):
    out = subprocess.run(["wrk", "-t1", f"-c{compare.CONNECTIONS}", f"-d{seconds}s", f"https://127.0.0.1:{port}{path}"],
                         capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0]) for line in out.splitlines() if "requests in" in line)


def handshakes(port, kind, seconds):
    out = subprocess.run(["openssl", "s_time", "-connect", f"127.0.0.1:{port}", f"-{kind}", "-time", str(seconds)],
                         capture_output=True, text=True, check=True).stdout
    return int(re.search(r"(\d+) connections in \d+ real seconds", out).group(1))


def rounds(count, contestants, work):
    """Median CPU microseconds of each for one unit of work, in interleaved rounds."""
    results = {name: [] for name, _, _ in contestants}
    for _ in range(count):
        for name, process, port in contestants:
            before = compare.cpu_seconds(process.pid)
            done = work(port)
            results[name].append((compare.cpu_seconds(process.pid) - before) * 1e6 / max(done, 1))
    return {name: statistics.median(rows) for name, rows in results.items()}


def report(case, results, target):
    base = results["nginx"]
    for name, micros in results.items():
        ratio = "" if name == "nginx" else f"   ratio {micros / base:.2f} ({target})"
        print(f"{case:16} {name:9} {micros:8.1f} us CPU each, {1e6 / micros:8.0f} per CPU second{ratio}", flush=True)


def idle(process, port, count, is_tls):
    """KiB that each of so many idle connections costs; each has been used once."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    time.sleep(3)
    before, held = compare.resident_kib(process.pid), []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        if is_tls:
            connection = context.wrap_socket(connection)
        connection.sendall(b"GET /plain/1k HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while len(answer) < 1024:
            answer += connection.recv(65536)
        assert answer.startswith(OK), answer[:100]
        held.append(connection)
    time.sleep(3)
    each = (compare.resident_kib(process.pid) - before) / count
    for connection in held:
        connection.close()
    return each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goodgate", default="target/release/goodgate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=10_000)
    cases = ["kept", "handshakes", "resumed", "idle"]
    parser.add_argument("--case", action="append", choices=cases)
    options = parser.parse_args()
    wanted = options.case or cases
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tempfile.mkdtemp(prefix="goodgate-bench-")
    running = []
    try:
        with open(f"{folder}/log", "w", encoding="utf8") as log:
            certificate(folder)
            for place in ("plain", "hit"):
                os.makedirs(f"{folder}/root/{place}")
                with open(f"{folder}/root/{place}/1k", "wb") as file:
                    file.write(b"x" * 1024)
            os.chmod(folder, 0o755)
            ports = [compare.free_port() for _ in range(4)]
            running.append(compare.nginx(folder, "backend", ports[0], f"server {{ listen 127.0.0.1:{ports[0]}; root {folder}/root; etag off; }}", log))
            peer = compare.nginx(folder, "peer", ports[1], f"""proxy_cache_path {folder}/peer/cache keys_zone=main:10m;
                upstream web {{ server 127.0.0.1:{ports[0]}; keepalive 64; keepalive_requests 100000000; }}
                server {{ listen 127.0.0.1:{ports[1]} ssl; ssl_certificate {folder}/site.crt; ssl_certificate_key {folder}/site.key;
                  ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache off; ssl_session_tickets on;
                  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-Forwarded-For $remote_addr;
                  location / {{ proxy_pass http://web; }}
                  location /hit {{ proxy_cache main; proxy_cache_valid 200 1h; proxy_pass http://web; }} }}""", log)
            running.append(peer)
            gateway = goodgate(options.goodgate, folder, ports[2:], ports[0], log)
            running.append(gateway)
            both = [("nginx", peer, ports[1]), ("goodgate", gateway, ports[2])]
            for _, _, port in both:
                kept(port, "/plain/1k", 1)
                kept(port, "/hit/1k", 1)
            if "kept" in wanted:
                report("kept, proxied", rounds(options.rounds, both, lambda port: kept(port, "/plain/1k", options.seconds)), "at most 1.30")
                report("kept, cached", rounds(options.rounds, both, lambda port: kept(port, "/hit/1k", options.seconds)), "at most 1.30")
            if "handshakes" in wanted:
                report("handshakes", rounds(options.rounds, both, lambda port: handshakes(port, "new", options.seconds)), "at most 1.18")
            if "resumed" in wanted:
                report("resumed", rounds(options.rounds, both, lambda port: handshakes(port, "reuse", options.seconds)), "no target")
            if "idle" in wanted:
                for kind, at, is_tls, target in (("plain", 1, False, 16), ("TLS", 0, True, 40)):
                    own = [compare.free_port(), compare.free_port()]
                    fresh = goodgate(options.goodgate, folder, own, ports[0], log)
                    running.append(fresh)
                    each = idle(fresh, own[at], options.idle, is_tls)
                    print(f"idle, {kind:10} goodgate  {each:8.1f} KiB each, of {options.idle} (under {target})", flush=True)
    finally:
        for process in running:
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
