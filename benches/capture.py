#!/usr/bin/env python3
"""Acknowledged stand-ins a second: POST of 1 KiB JSON while the app is down, each answered after its entry is on disk.

    benches/capture.py                            64 and 256 connections, five seconds each, three rounds in turns
    benches/capture.py --fill 1000000             with so many entries in the store before it is measured
    benches/capture.py --closed 1000000           with so many closed ones, whose keys are remembered, by turns with an almost
                                                  empty store
    benches/capture.py --busy                     and besides: while pages of entries are asked for 20 times a second, and
                                                  entries of another app, which is back and takes 20 ms each, are replayed
    benches/capture.py --binary FILE --dir DIR    another binary, another disk

Needs wrk, and for the comparison redis-server and redis-benchmark (Redis Streams, `appendfsync always`). In turns with
them, in one run: the same server's honest error to the same request on a route that stores nothing, which is what HTTP
and the filters cost without a store. Look at the ratios; load and server share the machine.
"""
import argparse, asyncio, contextlib, json, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading
import time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONFIG = """
listen.address = "{listen}"
admin.address = "{admin}"
store = {{ path = "{store}", max_bytes = "100GiB" }}

[upstream.app]
endpoints = ["http://{app}"]
default = true

[route.checkout]
match = "POST /checkout"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.checkout.stand_in]
accept_if = 'body.currency == "USD" && body.cents > 0 && body.cents <= 5000'
at_most = {{ open = 10_000_000, open_sum = 1_000_000_000_000, sum_of = "body.cents" }}
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}

[upstream.other]
endpoints = ["http://{other}"]

[route.orders]
match = "POST /orders"
upstream = "other"
app_dedupes = {{ by = "x-request-id", for = "7d" }}
replay = {{ trigger = "manual", pace = {pace} }}

[route.orders.stand_in]
accept_if = 'body.cents > 0'
at_most = {{ open = 10_000_000, open_sum = 1_000_000_000_000, sum_of = "body.cents" }}
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}
"""
BODY = '{"currency":"USD","cents":1250,"order":{"customer":"c-4711","note":"'
TAIL = '","lines":[{"sku":"A-1","qty":2}]}}'
BODY += ("lorem ipsum dolor sit amet " * 40)[: 1024 - len(BODY) - len(TAIL)] + TAIL
SCRIPT = """
wrk.method, wrk.body = "POST", [==[%s]==]
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency)
  io.write(string.format('JSON {"rate":%%.0f,"p50":%%.3f,"p99":%%.3f,"max":%%.1f,"bad":%%d,"count":%%d}\\n',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    latency.max / 1000, summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout, summary.requests))
end
""" % BODY


def free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


TO_REPLAY = 300_000


class App(BaseHTTPRequestHandler):
    """Answers once: an app that was never seen is not stood in for."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.send_header("connection", "close")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


class Slow(asyncio.Protocol):
    """The other app: answers each request after 20 ms, or sooner, and says how many there were."""

    answered, takes = 0, 0.02

    def connection_made(self, transport):
        self.transport, self.read = transport, b""

    def data_received(self, data):
        self.read += data
        while (head := self.read.find(b"\r\n\r\n")) >= 0:
            length = re.search(rb"\r\ncontent-length: *(\d+)", self.read[: head + 2], re.I)
            end = head + 4 + int(length[1] if length else 0)
            if len(self.read) < end:
                return
            self.read = self.read[end:]
            asyncio.get_running_loop().call_later(Slow.takes, self.answer)

    def answer(self):
        Slow.answered += 1
        self.transport.write(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")


def serve_slowly(address):
    async def serve():
        host, port = address.split(":")
        server = await asyncio.get_running_loop().create_server(Slow, host, int(port))
        await server.serve_forever()

    asyncio.run(serve())


def post(address, path, body=BODY):
    order = urllib.request.Request(f"http://{address}{path}", body.encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(order, timeout=30)


def admin_post(admin, path, **asked):
    return json.load(post(admin, f"/api/v1{path}", json.dumps({**asked, "reason": "benchmark"})))


def within(seconds, what):
    until = time.monotonic() + seconds
    while True:
        try:
            return what()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def process(command, **more):
    running = subprocess.Popen(command, stdin=subprocess.DEVNULL, **more)
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(60)


@contextlib.contextmanager
def standin(binary, folder, pace=64):
    folder.mkdir(exist_ok=True)
    listen, admin, other = free(), free(), free()
    threading.Thread(target=serve_slowly, args=(other,), daemon=True).start()
    app = ThreadingHTTPServer(("127.0.0.1", 0), App)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    config = folder / "standin.toml"
    addresses = {"listen": listen, "admin": admin, "other": other, "app": "127.0.0.1:%d" % app.server_port}
    config.write_text(CONFIG.format(store=folder / "standin.db", pace=pace, **addresses))
    with open(folder / "log", "wb") as log, process([binary, "run", "-c", config], stdout=log, stderr=log) as running:
        within(60, lambda: post(listen, "/checkout"))
        # In this order: a socket that is closed while its thread waits on it goes on listening for a while.
        app.shutdown()
        app.server_close()
        within(60, lambda: post(listen, "/checkout"))
        yield listen, admin, running


@contextlib.contextmanager
def redis(folder):
    if not (shutil.which("redis-server") and shutil.which("redis-benchmark")):
        yield None
        return
    port = free().split(":")[1]
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]
    with process(command, stdout=subprocess.DEVNULL) as _:
        within(30, lambda: socket.create_connection(("127.0.0.1", int(port)), 1).close())
        yield port


def wrk(script, address, path, connections, seconds):
    command = ["wrk", "-t", "2", "-c", connections, "-d", f"{seconds}s", "--timeout", "30s", "-s", script]
    said = subprocess.run([*map(str, command), f"http://{address}{path}"], capture_output=True, text=True, check=True)
    return json.loads(re.search(r"JSON (\{.*\})", said.stdout)[1])


def xadd(port, connections, count):
    command = ["redis-benchmark", "-p", port, "-c", connections, "-n", count, "-P", "1", "--csv"]
    command += ["XADD", "orders", "*", "route", "/checkout", "body", "x" * 1024]
    said = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True).stdout
    figures = [figure.strip('"') for figure in said.strip().splitlines()[-1].rsplit(",", 7)]
    return {"rate": float(figures[1]), "p50": float(figures[4]), "p99": float(figures[6]), "max": float(figures[7])}


class Busy:
    """Pages and a replay, while the load goes on."""

    QUESTIONS = "&search=nobody-has-this", "&route=checkout", "&state=stored", ""

    def __init__(self, admin):
        self.admin, self.pages, self.replayed, self.seconds = admin, [], 0, 0.0

    def __enter__(self):
        self.run = admin_post(self.admin, "/replay/runs", route="orders")["id"]
        time.sleep(2)  # behind its canaries
        self.stop = threading.Event()
        self.turns = threading.Thread(target=self.turn)
        self.before, self.began = Slow.answered, time.monotonic()
        self.turns.start()

    def __exit__(self, *_):
        self.replayed += Slow.answered - self.before
        self.seconds += time.monotonic() - self.began
        self.stop.set()
        self.turns.join()
        admin_post(self.admin, f"/replay/runs/{self.run}/stop")
        time.sleep(0.5)

    def turn(self):
        while not self.stop.wait(0.05):
            question, began = self.QUESTIONS[len(self.pages) % len(self.QUESTIONS)], time.monotonic()
            with urllib.request.urlopen(f"http://{self.admin}/api/v1/entries?limit=100{question}", timeout=30) as page:
                page.read()
            self.pages.append((time.monotonic() - began) * 1e3)


def fill(script, listen, path, left):
    while left > 0:
        filled = wrk(script, listen, path, 256, 5)
        if filled["bad"]:
            sys.exit(f"not all were stood in for: {filled}")
        left -= filled["count"]


def force(listen, admin):
    """Entries of the other app, which has answered once."""
    post(listen, "/orders")
    admin_post(admin, "/mode", route="orders", mode="forced", **{"for": "12h"})


def close(script, listen, admin, count):
    """Entries that are stored and replayed, until none of them is open."""
    fill(script, listen, "/orders", count)
    Slow.takes = 0
    admin_post(admin, "/replay/runs", route="orders")
    stored = f"http://{admin}/api/v1/entries?route=orders&state=stored&limit=1"
    while json.load(urllib.request.urlopen(stored, timeout=30))["entries"]:
        time.sleep(1)
    Slow.takes = 0.02


def written_by(pid):
    """Bytes that the process had the kernel write to a disk."""
    return int(re.search(r"^write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.M)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=HERE.parent / "target/release/standin", type=Path)
    parser.add_argument("--dir", help="a folder on the disk to be measured")
    parser.add_argument("--connections", default="64,256")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--fill", type=int, default=0)
    parser.add_argument("--closed", type=int, default=0)
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="standin-capture-", dir=arguments.dir or "."))
    try:
        (folder / "redis").mkdir()
        script = folder / "post.lua"
        script.write_text(SCRIPT)
        with contextlib.ExitStack() as stack:
            pace = 1000 if arguments.closed else 64
            listen, admin, running = stack.enter_context(standin(arguments.binary, folder, pace))
            port = stack.enter_context(redis(folder / "redis"))
            busy, empty = Busy(admin), None
            if arguments.busy or arguments.closed:
                force(listen, admin)
            if arguments.closed:
                close(script, listen, admin, arguments.closed)
                empty = stack.enter_context(standin(arguments.binary, folder / "empty"))[0]
            path, least = ("/orders", TO_REPLAY) if arguments.busy else ("/checkout", 0)
            fill(script, listen, path, max(arguments.fill, least))
            print("connections |  ceiling/s | stand-ins/s | of ceiling |    redis/s | of redis | p50 ms | p99 ms | longest ms | busy")
            for connections in map(int, arguments.connections.split(",")):
                ceiling, ours, theirs, beside_it, of_empty = [], [], [], [], []
                before = written_by(running.pid)
                for _ in range(arguments.rounds):
                    ceiling.append(wrk(script, listen, "/nothing-is-stored", connections, arguments.seconds)["rate"])
                    ours.append(wrk(script, listen, "/checkout", connections, arguments.seconds))
                    if empty:
                        of_empty.append(ours[-1]["rate"] / wrk(script, empty, "/checkout", connections, arguments.seconds)["rate"])
                    if arguments.busy:
                        with busy:
                            beside_it.append(wrk(script, listen, "/checkout", connections, arguments.seconds))
                    if port:
                        count = int(ours[-1]["rate"] * arguments.seconds)
                        theirs.append(xadd(port, connections, count)["rate"])
                if any(round["bad"] for round in ours + beside_it):
                    sys.exit(f"not all were stood in for: {ours} {beside_it}")
                written = written_by(running.pid) - before
                if written < 1024 * sum(round["count"] for round in ours + beside_it):
                    sys.exit(f"only {written} bytes reached the disk: is {folder} one?")
                middle = statistics.median
                top, rate = middle(ceiling), middle(round["rate"] for round in ours)
                beside = middle(theirs) if theirs else float("nan")
                p50, p99 = (middle(round[name] for round in ours) for name in ("p50", "p99"))
                longest = max(round["max"] for round in ours)
                halves = [one["rate"] / two["rate"] for one, two in zip(beside_it, ours)]
                share = f"{middle(halves):.2f} of it" if halves else ""
                if of_empty:
                    share += f" | {middle(of_empty):.2f} of an empty store"
                print(
                    f"{connections:11} | {top:10.0f} | {rate:11.0f} | {rate / top:10.2f} | {beside:10.0f} | "
                    f"{rate / beside:8.2f} | {p50:6.2f} | {p99:6.2f} | {longest:10.1f} | {share}",
                    flush=True,
                )
            if arguments.busy:
                if not busy.replayed:
                    sys.exit("nothing was replayed meanwhile")
                print(
                    f"busy: {busy.replayed / busy.seconds:.0f} replays a second; {len(busy.pages)} pages, "
                    f"median {statistics.median(busy.pages):.1f} ms, longest {max(busy.pages):.1f} ms"
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
