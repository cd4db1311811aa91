#!/usr/bin/env python3
"""Instructions that standin executes for one request: steadier than time on a noisy machine.

    benches/instructions.py                     build (profile `counting`), count, compare with benches/instructions.txt
    benches/instructions.py --write             the same, and keep what was counted as the new figures
    benches/instructions.py --binary FILE       count that binary instead of building one
    benches/instructions.py --profile get       where they go, by function (callgrind_annotate)

Needs valgrind. A small origin and a small client run beside standin, which runs under callgrind: once with N requests
and once with 3N. The difference, over 2N, is one request; start, stop and the rest fall out of it.
"""
import argparse, os, re, signal, socket, subprocess, sys, tempfile, threading, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEPT = HERE / "instructions.txt"
TOLERANCE = 0.05
ORDER = b'{"currency":"USD","cents":1200,"sku":"'
ORDER += b"x" * (1024 - len(ORDER) - 2) + b'"}'


def request(method, path, body=b""):
    length = f"Content-Length: {len(body)}\r\nContent-Type: application/json\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench/1\r\nAccept: */*\r\n{length}\r\n"
    return head.encode() + body


# Name, requests of the short run, what is asked, whether the app is gone, status of the answers.
CASES = {
    "get": (300, request("GET", "/small"), False, 200),
    "post1k": (300, request("POST", "/post", ORDER), False, 200),
    # On a route that stands in, and the app answers.
    "stood_in": (300, request("POST", "/checkout", ORDER), False, 200),
    "capture": (200, request("POST", "/checkout", ORDER), True, 201),
}


def message(stream):
    """Reads one HTTP/1.1 message with a Content-Length; its first line, or None at the end of the stream."""
    first = line = stream.readline()
    length = 0
    while line not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        line = stream.readline()
    if not first:
        return None
    stream.read(length)
    return first


class Origin:
    """Answers every request with 100 bytes. One thread for each connection."""

    ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + b"x" * 100

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        self.open = [self.listener]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        try:
            while True:
                connection, _ = self.listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.open.append(connection)
                threading.Thread(target=self.answer, args=(connection,), daemon=True).start()
        except OSError:
            pass

    def answer(self, connection):
        stream = connection.makefile("rb")
        try:
            while message(stream):
                connection.sendall(self.ANSWER)
        except OSError:
            pass

    def stop(self):
        for one in self.open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()


class Client:
    """One connection, one request at a time."""

    def __init__(self, log):
        for _ in range(600):
            said = re.search(r"^listening on ([\d.]+):(\d+)$", log.read_text(), re.M)
            if said:
                break
            time.sleep(0.1)
        else:
            sys.exit(f"standin does not listen; see {log}")
        self.connection = socket.create_connection((said[1], int(said[2])), timeout=60)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.connection.makefile("rb")

    def ask(self, what):
        self.connection.sendall(what)
        return int(message(self.stream).split()[1])


def run(binary, case, count, folder):
    """Instructions of a whole run with `count` requests, and callgrind's file."""
    _, what, app_is_gone, status = CASES[case]
    origin, out = Origin(), folder / f"{case}-{count}.callgrind"
    store, said = folder / f"{case}-{count}.db", folder / f"{case}-{count}.log"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(binary), "run", "-c", str(HERE / "pass_through.toml"),
               "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with open(said, "wb") as log:
        standin = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "UPSTREAM": origin.address, "STORE": str(store)})
    try:
        client = Client(said)
        for _ in range(20):
            assert client.ask(request("GET", "/small")) == 200
        if app_is_gone:
            origin.stop()
            for _ in range(10):
                client.ask(request("GET", "/small"))
        for _ in range(20):
            client.ask(what)
        answers = [client.ask(what) for _ in range(count)]
        if set(answers) != {status}:
            sys.exit(f"{case}: answers are {set(answers)}, not {status}; see {said}")
        client.connection.close()
    finally:
        standin.send_signal(signal.SIGTERM)
        standin.wait(60)
        origin.stop()
    return int(re.search(r"^(?:summary|totals): (\d+)", out.read_text(), re.M)[1]), out


def build():
    root = HERE.parent
    subprocess.run(["cargo", "build", "--quiet", "--profile", "counting"], cwd=root, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    return target / "counting" / "standin"


def kept():
    lines = [line.split() for line in KEPT.read_text().splitlines()] if KEPT.exists() else []
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[0] in CASES}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--profile", choices=CASES)
    args = parser.parse_args()
    binary = args.binary or build()
    before, failed, counted = kept(), False, {}
    with tempfile.TemporaryDirectory(prefix="standin-instructions-") as folder:
        folder = Path(folder)
        if args.profile:
            _, out = run(binary, args.profile, 10 * CASES[args.profile][0], folder)
            return subprocess.run(["callgrind_annotate", "--inclusive=no", "--threshold=97", str(out)], check=True)
        for case in args.cases.split(","):
            short = CASES[case][0]
            counted[case] = round((run(binary, case, 3 * short, folder)[0] - run(binary, case, short, folder)[0]) / (2 * short))
            was = before.get(case)
            change = counted[case] / was - 1 if was else 0.0
            failed |= change > TOLERANCE
            print(f"{case:8} {counted[case]:8,} instructions a request" + (f"   {change:+.1%} of {was:,}" if was else ""), flush=True)
    if args.write:
        lines = "".join(f"{case} {count}\n" for case, count in (before | counted).items())
        KEPT.write_text("# Instructions a request, by benches/instructions.py --write; more than 5 % above is a failure of .ci/run.\n" + lines)
    elif failed:
        sys.exit(f"more than {TOLERANCE:.0%} above benches/instructions.txt; if that is meant, run benches/instructions.py --write")


if __name__ == "__main__":
    main()
