#!/usr/bin/env python3
"""CPU per proxied request with 10, 1,000 and 10,000 backends in one upstream, of goodgate and, where they are
installed, HAProxy and nginx, each behind the same nginx that listens on all the ports. Also how long goodgate takes
to start. Needs nginx and wrk: `python3 benches/many_backends.py target/release/goodgate [seconds]`."""

import glob, os, re, resource, shutil, statistics, subprocess, sys, tempfile, time

SIZES = (10, 1000, 10000)
FIRST = 20000
ROUNDS = 7
PROCESSES = 4


def start_backends(folder):
    """Several processes: each may open only so many files, and each port and each kept connection is one."""
    os.makedirs(f"{folder}/root")
    with open(f"{folder}/root/1k", "w") as file:
        file.write("x" * 1024)
    os.chmod(folder, 0o755)
    programs = []
    for part in range(PROCESSES):
        own = f"{folder}/backends-{part}"
        os.makedirs(own)
        listens = "".join(f"listen 127.0.0.1:{FIRST + i};" for i in range(part, max(SIZES), PROCESSES))
        with open(f"{own}/nginx.conf", "w") as file:
            file.write(f"""daemon off; master_process off; pid {own}/pid; error_log {own}/e.log;
events {{ worker_connections 18000; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_body_temp_path {own}/a;
proxy_temp_path {own}/b; fastcgi_temp_path {own}/c; uwsgi_temp_path {own}/d; scgi_temp_path {own}/f;
server {{ {listens} root {folder}/root; }} }}""")
        programs.append(subprocess.Popen(["nginx", "-c", f"{own}/nginx.conf", "-p", own]))
    time.sleep(2)
    return programs


def goodgate(binary, folder, size, port):
    backends = ", ".join(f'"127.0.0.1:{FIRST + i}"' for i in range(size))
    with open(f"{folder}/goodgate-{size}.yaml", "w") as file:
        file.write(f"""server: {{ threads: 1 }}
listeners: [{{ address: "127.0.0.1:{port}" }}]
admin: {{ address: "127.0.0.1:{port + 1}" }}
access_log: {{ path: off }}
upstreams: {{ web: {{ backends: [{backends}] }} }}
routes: [{{ upstream: web }}]
""")
    begun = time.time()
    program = subprocess.Popen([binary, "run", "--config", f"{folder}/goodgate-{size}.yaml"], stderr=subprocess.DEVNULL)
    ready = ["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port + 1}/readyz"]
    while subprocess.run(ready).returncode:
        time.sleep(0.002)
    return program, time.time() - begun


def haproxy(_, folder, size, port):
    servers = "\n".join(f"  server s{i} 127.0.0.1:{FIRST + i}" for i in range(size))
    with open(f"{folder}/haproxy-{size}.cfg", "w") as file:
        file.write(f"""global
  nbthread 1
  maxconn 50000
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  balance roundrobin
{servers}
""")
    begun = time.time()
    program = subprocess.Popen(["haproxy", "-f", f"{folder}/haproxy-{size}.cfg"], stderr=subprocess.DEVNULL)
    while subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/1k"]).returncode:
        time.sleep(0.01)
    return program, time.time() - begun


def nginx(_, folder, size, port):
    servers = "".join(f"server 127.0.0.1:{FIRST + i};" for i in range(size))
    own = f"{folder}/nginx-{size}"
    os.makedirs(own)
    with open(f"{own}/nginx.conf", "w") as file:
        file.write(f"""daemon off; master_process off; pid {own}/pid; error_log {own}/e.log;
events {{ worker_connections 18000; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {own}/a; proxy_temp_path {own}/b;
fastcgi_temp_path {own}/c; uwsgi_temp_path {own}/d; scgi_temp_path {own}/f;
upstream web {{ {servers} keepalive 16000; }}
server {{ listen 127.0.0.1:{port}; location / {{ proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://web; }} }} }}""")
    begun = time.time()
    program = subprocess.Popen(["nginx", "-c", f"{own}/nginx.conf", "-p", own])
    while subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/1k"]).returncode:
        time.sleep(0.01)
    return program, time.time() - begun


def cpu_ns(pid):
    return sum(int(open(path).read().split()[0]) for path in glob.glob(f"/proc/{pid}/task/*/schedstat"))


def load(port, seconds):
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", f"http://127.0.0.1:{port}/1k"]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        print(said, file=sys.stderr)
    return int(re.search(r"(\d+) requests in", said)[1])


def main():
    binary, seconds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = tempfile.mkdtemp(prefix="goodgate-many-")
    backends = start_backends(folder)
    programs = list(backends)
    kinds = [("goodgate", goodgate)] + [(k.__name__, k) for k in (haproxy, nginx) if shutil.which(k.__name__)]
    if os.environ.get("ONLY"):
        kinds = [kind for kind in kinds if kind[0] in os.environ["ONLY"]]
    try:
        for number, (name, start) in enumerate(kinds):
            running = {}
            for place, size in enumerate(SIZES):
                port = 19000 + 20 * number + 2 * place
                program, took = start(binary, folder, size, port)
                programs.append(program)
                running[size] = (program.pid, port, took, [])
                # Until every backend has a kept connection.
                load(port, 2 if size < 10000 else 6)
            for _ in range(ROUNDS):
                for pid, port, _, costs in running.values():
                    before = cpu_ns(pid)
                    requests = load(port, seconds)
                    costs.append((cpu_ns(pid) - before) / requests / 1000)
            base = statistics.median(running[SIZES[0]][3])
            for size, (pid, _, took, costs) in running.items():
                cost = statistics.median(costs)
                resident = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) // 1024
                print(f"{name:9} {size:6} backends: {cost:6.1f} us a request ({cost / base:.2f}), start {took:.2f} s, {resident} MiB", flush=True)
            for program in programs[PROCESSES:]:
                program.kill()
            programs[PROCESSES:] = []
    finally:
        for program in programs:
            program.kill()
        shutil.rmtree(folder, ignore_errors=True)


main()
