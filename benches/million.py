#!/usr/bin/env python3
"""A million small copies through the real binary: what each costs in memory, and what the disk's index costs.

  memory  fills the memory tier and prints resident memory for each copy beyond that of a gateway that has served as
          many requests for one page.
  disk    fills the disk under a memory that holds next to nothing, stops, starts again, and prints how long until
          the index is read and what it takes.

The backend is nginx with a file of 1 KiB and ten fields of header. Needs nginx and wrk. Everything listens on 127.0.0.1.

  cargo build --release
  benches/million.py [--goodgate target/release/goodgate] [--objects 1000000] [--case memory --case disk]
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import compare

BODY_BYTES = 1024
# Each wrk asks for so many pages that no other asks for.
STRIDE = 1 << 32
SECONDS = 10


class Gateway:
    """A goodgate of its own, with its error log in a file."""

    def __init__(self, binary, folder, name, backend, caches):
        self.folder = f"{folder}/{name}"
        os.makedirs(self.folder, exist_ok=True)
        self.port, self.admin = compare.free_port(), compare.free_port()
        path = f"{self.folder}/goodgate.yaml"
        with open(path, "w", encoding="utf8") as file:
            file.write(f"""listeners: [{{ address: "127.0.0.1:{self.port}" }}]
admin: {{ address: "127.0.0.1:{self.admin}" }}
limits: {{ max_requests_per_connection: 1000000000 }}
access_log: {{ path: off }}
caches: {{ main: {caches} }}
upstreams: {{ web: ["127.0.0.1:{backend}"] }}
routes: [{{ upstream: web, cache: {{ mode: standard, ttl: {{ "200": 24h }} }} }}]
""")
        self.log = f"{self.folder}/errors.log"
        began = time.monotonic()
        with open(self.log, "w", encoding="utf8") as log:
            self.process = subprocess.Popen([binary, "run", "--config", path], stdout=log, stderr=log)
        while "goodgate is ready" not in self.errors():
            if self.process.poll() is not None:
                sys.exit(f"goodgate did not start:\n{self.errors()}")
            time.sleep(0.002)
        self.ready_after = time.monotonic() - began

    def errors(self):
        with open(self.log, encoding="utf8") as log:
            return log.read()

    def metric(self, series):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(series + " ")), 0.0)

    def objects(self, tier):
        return int(self.metric(f'goodgate_cache_objects{{cache="main",tier="{tier}"}}'))

    def bytes(self, tier):
        return int(self.metric(f'goodgate_cache_bytes{{cache="main",tier="{tier}"}}'))

    def resident_bytes(self):
        """Once it does not move any more: freed memory goes back to the system with a delay."""
        last = 0
        for _ in range(30):
            now = compare.resident_kib(self.process.pid) * 1024
            if abs(now - last) < 1 << 20:
                return now
            last = now
            time.sleep(1)
        return last

    def load(self, script, *arguments):
        subprocess.run(
            ["wrk", "-t1", f"-c{compare.CONNECTIONS}", f"-d{SECONDS}s", f"-s{script}", f"http://127.0.0.1:{self.port}/1k", "--", *arguments],
            capture_output=True, check=True)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()


def scripts(folder):
    """Asks for one page after the other from a number on, or for always the same."""
    texts = {
        "all": """local n = 0
            init = function(arguments) n = tonumber(arguments[1]) end
            request = function() n = n + 1; return wrk.format("GET", string.format("/1k?%d", n)) end""",
        "one": """request = function() return wrk.format("GET", "/1k?one") end""",
    }
    for name, text in texts.items():
        with open(f"{folder}/{name}.lua", "w", encoding="utf8") as file:
            file.write(text)
    return f"{folder}/all.lua", f"{folder}/one.lua"


def fill(gateway, tier, objects, script):
    began, at, held = time.monotonic(), 0, gateway.objects(tier)
    while held < objects:
        gateway.load(script, str(at * STRIDE))
        before, held, at = held, gateway.objects(tier), at + 1
        if held == before:
            sys.exit(f"only {held} copies are held: {gateway.errors()}")
    print(f"{tier:7} filled with {held} copies in {time.monotonic() - began:.0f} s", flush=True)
    return held


def memory(binary, folder, backend, options):
    of_all, of_one = scripts(folder)
    gateway = Gateway(binary, folder, "memory", backend, f"{{ memory: {options.memory} }}")
    try:
        gateway.load(of_one)
        before = gateway.resident_bytes()
        held = fill(gateway, "memory", options.objects, of_all)
        after = gateway.resident_bytes()
        each = (after - before) / held
        print(f"memory  {each:.0f} bytes resident for each copy of {BODY_BYTES} ({each / BODY_BYTES:.2f} times its body), "
              f"{gateway.bytes('memory') / held:.0f} by its own account; {after / 2**20:.0f} MiB in all, {before / 2**20:.0f} at first")
    finally:
        gateway.stop()


def disk(binary, folder, backend, options):
    of_all, _ = scripts(folder)
    caches = lambda name: f"{{ memory: 1MiB, disk: {{ path: {folder}/{name}, size: 10GiB }} }}"
    gateway = Gateway(binary, folder, "empty", backend, caches("nothing"))
    empty = gateway.resident_bytes()
    gateway.stop()
    gateway = Gateway(binary, folder, "fill", backend, caches("copies"))
    try:
        held = fill(gateway, "disk", options.objects, of_all)
        dropped = gateway.metric('goodgate_cache_disk_dropped_writes_total{cache="main"}')
        print(f"disk    {gateway.bytes('disk') / held:.0f} bytes of disk for each copy, {dropped:.0f} writes dropped", flush=True)
    finally:
        gateway.stop()
    if options.cold:
        subprocess.run(["sync"], check=True)
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3")
    gateway = Gateway(binary, folder, "again", backend, caches("copies"))
    try:
        index = re.search(r"the disk cache is in use.* took=(\S+)", gateway.errors())
        held, after = gateway.objects("disk"), gateway.resident_bytes()
        kind = "cold" if options.cold else "in the page cache"
        print(f"disk    index of {held} copies ({kind}) read in {index.group(1) if index else '?'}, first request after {gateway.ready_after:.2f} s, "
              f"{(after - empty) / held:.0f} bytes of memory for each copy")
    finally:
        gateway.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goodgate", default="target/release/goodgate")
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--memory", default="16GiB", help="`memory` of the cache for the case memory")
    parser.add_argument("--cold", action="store_true", help="drop the page cache before the index is read (as root)")
    parser.add_argument("--case", action="append", choices=["memory", "disk"])
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="goodgate-million-")
    os.chmod(folder, 0o755)
    with open(f"{folder}/log", "w", encoding="utf8") as log:
        os.makedirs(f"{folder}/root")
        with open(f"{folder}/root/1k", "wb") as file:
            file.write(b"x" * BODY_BYTES)
        port = compare.free_port()
        backend = compare.nginx(folder, "backend", port, f"server {{ listen 127.0.0.1:{port}; root {folder}/root; expires 24h; }}", log)
        try:
            for case, run in (("memory", memory), ("disk", disk)):
                if case in (options.case or ["memory", "disk"]):
                    run(os.path.abspath(options.goodgate), folder, port, options)
        finally:
            backend.stop()
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
