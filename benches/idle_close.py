#!/usr/bin/env python3
"""How many requests are lost to backends that close idle connections, by proxy.

Each backend closes a kept connection after 2 s without a request, and as over a real network the news of it is
on its way for 20 ms, in which what is sent to it is lost. Each has one client whose pace is just about those
2 s (1.96 to 2.04 s): the worst that there is. All proxies are told to keep connections for 60 s, and none
knows of the 2 s. Prints the POSTs (which no proxy may repeat) and the GETs that ended in an error.

Needs nginx and haproxy; what is missing is left out. Everything listens on 127.0.0.1.

  cargo build --release -p goodgate
  benches/idle_close.py [--seconds 60] [--goodgate target/release/goodgate]
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import tempfile

from compare import Process, free_port, nginx

IDLE_LIMIT = 2.0
NEWS_TRAVELS = 0.02
PACES = [1.96 + 0.004 * step for step in range(21)]


async def serve(reader, writer):
    """Answers until nothing has come for the idle limit; then closes a little later."""
    try:
        while True:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_LIMIT)
            if b"content-length: 5" in head.lower():
                await reader.readexactly(5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except asyncio.TimeoutError:
        await asyncio.sleep(NEWS_TRAVELS)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass
    writer.close()


async def ask(port, connection, method, number):
    """One request on a kept connection; its status and the connection for the next one."""
    reader, writer = connection or await asyncio.open_connection("127.0.0.1", port)
    body = "hello" if method == "POST" else ""
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    writer.write(f"{method} /{number} HTTP/1.1\r\nHost: test\r\n{length}\r\n{body}".encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    size = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length")), None)
    if size is not None:
        await reader.readexactly(size)
    keeps = size is not None and "connection: close" not in head
    if not keeps:
        writer.close()
    return int(head.split(" ")[1]), (reader, writer) if keeps else None


async def client(port, method, number, pace, until, counts):
    connection = None
    while asyncio.get_running_loop().time() < until:
        try:
            status, connection = await ask(port, connection, method, number)
        except (OSError, asyncio.IncompleteReadError):
            status, connection = 0, None
        counts[0] += 1
        counts[1] += status != 200
        await asyncio.sleep(pace)


def haproxy_config(port, backends):
    parts = "".join(f"backend b{n}\n  server s 127.0.0.1:{backend} pool-purge-delay 60s\n" for n, backend in enumerate(backends))
    rules = "".join(f"  use_backend b{n} if {{ path /{n} }}\n" for n in range(len(backends)))
    return f"""global
  nbthread 1
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  timeout http-keep-alive 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
{rules}{parts}"""


def nginx_config(port, backends):
    upstreams = "".join(f"upstream u{n} {{ server 127.0.0.1:{backend}; keepalive 8; keepalive_timeout 60s; }}" for n, backend in enumerate(backends))
    places = "".join(f"location /{n} {{ proxy_pass http://u{n}; }}" for n in range(len(backends)))
    return f"""{upstreams} server {{ listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Connection ""; {places} }}"""


def goodgate_config(port, backends):
    upstreams = "".join(f"  u{n}: {{ backends: ['127.0.0.1:{backend}'], timeouts: {{ idle: 60s }} }}\n" for n, backend in enumerate(backends))
    routes = "".join(f"  - {{ match: {{ path: /{n} }}, upstream: u{n} }}\n" for n in range(len(backends)))
    return f"""server: {{ threads: 1 }}
listeners: [{{ address: "127.0.0.1:{port}" }}]
admin: {{ address: "127.0.0.1:{free_port()}" }}
access_log: {{ path: off }}
upstreams:
{upstreams}routes:
{routes}"""


def start(name, folder, backends, binary, log):
    """The proxy in front of these backends, or nothing if it is not installed."""
    port = free_port()
    if name == "nginx":
        return nginx(folder, name, port, nginx_config(port, backends), log) if shutil.which("nginx") or os.path.exists("/usr/sbin/nginx") else None
    path = f"{folder}/{name}.conf"
    with open(path, "w", encoding="utf8") as file:
        file.write(haproxy_config(port, backends) if name == "haproxy" else goodgate_config(port, backends))
    if name == "haproxy":
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        return Process([program, "-db", "-f", path], port, log) if os.path.exists(program) else None
    return Process([binary, "run", "--config", path], port, log)


async def run(options, folder, log):
    running, tasks, results = [], [], {}
    try:
        until = asyncio.get_running_loop().time() + options.seconds
        for name in ("nginx", "haproxy", "goodgate"):
            for method in ("POST", "GET"):
                servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for _ in PACES]
                backends = [server.sockets[0].getsockname()[1] for server in servers]
                os.makedirs(f"{folder}/{method}", exist_ok=True)
                proxy = await asyncio.to_thread(start, name, f"{folder}/{method}", backends, options.goodgate, log)
                if proxy is None:
                    continue
                running.append(proxy)
                counts = results[name, method] = [0, 0]
                tasks += [asyncio.create_task(client(proxy.port, method, n, pace, until, counts)) for n, pace in enumerate(PACES)]
        await asyncio.gather(*tasks)
    finally:
        for proxy in running:
            proxy.stop()
    for (name, method), (asked, failed) in results.items():
        print(f"{name:10} {method:5} {asked:6} requests {failed:5} failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goodgate", default="target/release/goodgate")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="goodgate-bench-")
    os.chmod(folder, 0o755)
    with open(f"{folder}/log", "w", encoding="utf8") as log:
        try:
            asyncio.run(run(options, folder, log))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
