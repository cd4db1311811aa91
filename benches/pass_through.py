#!/usr/bin/env python3
"""What it costs to pass a request on: CPU per request of standin and of whatever of HAProxy and nginx is installed.

    benches/pass_through.py                                   get, post1k and close, ten turns of one second each
    benches/pass_through.py --standin before=/old/standin --standin after=target/release/standin
    benches/pass_through.py --scenarios get,h2 --turns 20     h2: HTTP/2 in clear, 16 connections of 8 streams (needs h2load)
    benches/pass_through.py --memory                          resident memory with idle connections, and with busy ones

Needs wrk, nginx and two cores: the proxies are held to the first, wrk and the app to the second. All proxies are up at once and
take turns of one slice each, so that what else happens on the machine comes to all alike; told are the medians, and the
median over the turns of the ratio within a turn. The app is a small nginx of its own.
"""
import argparse, os, re, resource, shutil, signal, socket, statistics, subprocess, sys, tempfile, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
BODY = {"post1k": 1024, "post64k": 65536, "stood_in": 1024}
SCENARIOS = {
    "get": ("/small", 64, []),
    "post1k": ("/post", 64, []),
    "post64k": ("/post", 64, []),
    "big": ("/big", 16, []),
    "close": ("/small", 64, ["-H", "Connection: close"]),
    "h2": ("/small", 16, ["-m8"]),
    "stood_in": ("/checkout", 64, []),  # a route with a stand-in: its body is copied aside
}

HAPROXY = """
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 60s
    timeout server 15s
frontend front
    bind 127.0.0.1:{port}
    http-request set-header X-Request-ID %[uuid()] unless {{ req.hdr(X-Request-ID) -m found }}
    default_backend app
backend app
    server app {app}
"""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx-{port}.pid; error_log {folder}/nginx-{port}.log;
events {{ worker_connections 20000; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_buffer_size 128k; client_max_body_size 10m;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {inside}
}}
"""
AS_PROXY = """
    map $http_x_request_id $id { '' $request_id; default $http_x_request_id; }
    upstream app { server APP; keepalive 256; }
    server { listen 127.0.0.1:PORT; location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header X-Request-ID $id; proxy_max_temp_file_size 0; } }
"""
AS_APP = """
    server { listen 127.0.0.1:PORT; root FOLDER/www; location = /big { } location / { return 200 "SMALL"; } }
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Program:
    """One program on one core, ended by its process id."""

    def __init__(self, name, command, port, core, env=None, log=None):
        self.name, self.port = name, port
        hold = (lambda: os.sched_setaffinity(0, {core})) if (os.cpu_count() or 1) > 1 else None
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})}, preexec_fn=hold)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        sys.exit(f"{name} does not listen")

    def processes(self):
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as children:
            return [self.process.pid, *map(int, children.read().split())]

    def cpu(self):
        """Seconds of CPU so far, by the scheduler's count."""
        total = 0
        for pid in self.processes():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def memory(self):
        """KiB resident."""
        return sum(int(line.split()[1]) for pid in self.processes() for line in open(f"/proc/{pid}/status") if line.startswith("VmRSS"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def app(folder, log):
    """Something that answers: an origin that is dearer than the proxies would only make them idle."""
    port = free_port()
    (folder / "www").mkdir(exist_ok=True)
    (folder / "www" / "big").write_bytes(b"x" * (1 << 20))
    inside = AS_APP.replace("PORT", str(port)).replace("FOLDER", str(folder)).replace("SMALL", "x" * 100)
    conf = folder / "app.conf"
    conf.write_text(NGINX.format(folder=folder, port=port, inside=inside))
    return Program("app", ["nginx", "-c", str(conf)], port, 1, log=log)


def standin(name, binary, app, folder, log):
    port = free_port()
    command = [str(binary), "run", "-c", str(HERE / "pass_through.toml"), "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}"]
    env = {"UPSTREAM": f"127.0.0.1:{app.port}", "STORE": str(folder / f"{name}.db")}
    return Program(name, command, port, 0, env, log)


def peers(app, folder, log):
    found = []
    if shutil.which("haproxy"):
        port, conf = free_port(), folder / "haproxy.cfg"
        conf.write_text(HAPROXY.format(port=port, app=f"127.0.0.1:{app.port}"))
        found.append(Program("haproxy", ["haproxy", "-db", "-f", str(conf)], port, 0, log=log))
    port, conf = free_port(), folder / "proxy.conf"
    inside = AS_PROXY.replace("APP", f"127.0.0.1:{app.port}").replace("PORT", str(port))
    conf.write_text(NGINX.format(folder=folder, port=port, inside=inside))
    found.append(Program("nginx", ["nginx", "-c", str(conf)], port, 0, log=log))
    return found


def slice_of(proxy, scenario, seconds, folder):
    """CPU microseconds per request of one proxy under one load."""
    path, connections, more = SCENARIOS[scenario]
    script = []
    if scenario in BODY:
        order = '{"currency":"USD","cents":1200,"sku":"'
        order += "x" * (BODY[scenario] - len(order) - 2) + '"}'
        file = folder / f"{scenario}.lua"
        file.write_text(f"wrk.method = 'POST'\nwrk.headers['Content-Type'] = 'application/json'\nwrk.body = '{order}'\n")
        script = ["-s", str(file)]
    url = f"http://127.0.0.1:{proxy.port}{path}"
    if scenario == "h2":
        command = ["h2load", "-t1", f"-c{connections}", "-D", str(seconds), *more, url]
    else:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *more, *script, url]
    hold = (lambda: os.sched_setaffinity(0, {1})) if (os.cpu_count() or 1) > 1 else None
    before = proxy.cpu()
    out = subprocess.run(command, capture_output=True, text=True, preexec_fn=hold).stdout
    used = proxy.cpu() - before
    done = re.search(r"(\d+) requests in |^status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", out, re.MULTILINE)
    done = int(done[1] or done[2]) if done else 0
    if not done or "Non-2xx" in out:
        sys.exit(f"{proxy.name}, {scenario}: {out}")
    return used / done * 1e6


def compare(args, proxies, folder):
    base = proxies[-2].name if len(proxies) > 2 else proxies[-1].name
    print(f"CPU microseconds per request: median of {args.turns} turns, and the median ratio to {base}\n")
    print("| | " + " | ".join(args.scenarios) + " |\n|---|" + "---|" * len(args.scenarios))
    table = {proxy.name: [] for proxy in proxies}
    for scenario in args.scenarios:
        samples = {proxy.name: [] for proxy in proxies}
        able = [proxy for proxy in proxies if scenario != "h2" or proxy.name != "nginx"]  # nginx 1.22 takes one protocol a port
        for proxy in able:
            slice_of(proxy, scenario, 1, folder)
        for _ in range(args.turns):
            for proxy in able:
                samples[proxy.name].append(slice_of(proxy, scenario, args.seconds, folder))
        for name, mine in samples.items():
            if not mine or not samples[base]:
                table[name].append(f"{statistics.median(mine):.1f}" if mine else "–")
                continue
            ratio = statistics.median(one / other for one, other in zip(mine, samples[base]))
            table[name].append(f"{statistics.median(mine):.1f} ({ratio:.2f})")
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def memory(args, proxies, folder):
    """Idle keep-alive connections that have each made a request, then busy ones with large answers."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("| | at start | idle connections | KiB an idle one | under 256 busy ones | KiB a busy one |\n|---|---|---|---|---|---|")
    for proxy in proxies:
        start, open_ones, cells = proxy.memory(), [], []
        for count in (1000, min(args.idle, most - 1000)):
            while len(open_ones) < count:
                # One address has too few ports for all of them.
                source = (f"127.0.0.{2 + len(open_ones) // 5000}", 0)
                connection = socket.create_connection(("127.0.0.1", proxy.port), source_address=source)
                connection.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200"), proxy.name
                open_ones.append(connection)
            time.sleep(3)  # What is quiet for a twentieth of a second counts as idle.
            now = proxy.memory()
            cells.append(f"{count:,}: {now / 1024:.1f} MiB")
        per = (now - start) / len(open_ones)
        for connection in open_ones:  # They are all still there.
            connection.sendall(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200"), proxy.name
            connection.close()
        time.sleep(1)
        before, busy = proxy.memory(), 0
        load = subprocess.Popen(["wrk", "-t1", "-c256", "-d4s", f"http://127.0.0.1:{proxy.port}/big"], stdout=subprocess.DEVNULL)
        while load.poll() is None:
            busy = max(busy, proxy.memory())
            time.sleep(0.2)
        print(f"| {proxy.name} | {start / 1024:.1f} MiB | {', '.join(cells)} | {per:.1f} | {busy / 1024:.1f} MiB | {max(0, busy - before) / 256:.1f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--standin", action="append", metavar="NAME=BINARY", help="default: target/release/standin")
    parser.add_argument("--scenarios", type=lambda text: text.split(","), default=["get", "post1k", "close"])
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=1)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--idle", type=int, default=10_000)
    args = parser.parse_args()
    for needed in ("wrk", "nginx", *(["h2load"] if "h2" in args.scenarios else [])):
        if not shutil.which(needed):
            sys.exit(f"{needed} is needed")
    binaries = [one.split("=", 1) for one in args.standin or [f"standin={HERE.parent / 'target/release/standin'}"]]
    with tempfile.TemporaryDirectory(prefix="standin-pass-through-") as folder:
        folder, running = Path(folder), []
        folder.chmod(0o755)  # nginx reads as somebody else
        with open(folder / "log", "ab") as log:
            try:
                origin = app(folder, log)
                running.append(origin)
                proxies = [standin(name, binary, origin, folder, log) for name, binary in binaries]
                running += proxies
                if not args.memory:
                    proxies += peers(origin, folder, log)
                    running += proxies[len(binaries):]
                (memory if args.memory else compare)(args, proxies, folder)
            finally:
                for program in running:
                    program.stop()


if __name__ == "__main__":
    main()
