"""Asks httpbin the same things direct and through a proxy, with the client library that everyone uses, and fails where
an answer differs. compare.py DIRECT THROUGH, each ADDRESS:PORT."""

import json
import sys

import requests

# What belongs to one hop, what a proxy adds, and what no two answers share.
CHANGES = {"date", "via", "x-request-id", "connection", "keep-alive", "transfer-encoding"}
ADDED = ("Via", "X-Forwarded-", "X-Request-Id", "Forwarded", "Connection", "Expect", "Transfer-Encoding",
         "Idempotency-Key")


def plain(told):
    """What httpbin tells, without the headers that a proxy adds."""
    if isinstance(told, dict) and "headers" in told:
        told["headers"] = {n: v for n, v in told["headers"].items() if not n.startswith(ADDED)}
    return told


def stream(session, url):
    return session.get(url + "/stream/30", stream=True)


def chunks():
    for number in range(50):
        yield f"chunk {number} ".encode() * 40


def cases():
    yield "get", lambda s, url: s.get(url + "/get", params={"a": ["1", "2"], "ä": "ö /?&"})
    yield "head", lambda s, url: s.head(url + "/get")
    yield "options", lambda s, url: s.options(url + "/get")
    for method in ("post", "put", "patch", "delete"):
        yield f"{method} json", lambda s, url, m=method: s.request(m, f"{url}/{m}", json={"a": [1, None, "ü"]})
        yield f"{method} form", lambda s, url, m=method: s.request(m, f"{url}/{m}", data={"a": "1", "b": "x y"})
        yield f"{method} empty", lambda s, url, m=method: s.request(m, f"{url}/{m}")
    yield "chunked upload", lambda s, url: s.post(url + "/post", data=chunks())
    yield "binary upload", lambda s, url: s.post(url + "/post", data=bytes(range(256)) * 400)
    yield "redirects", lambda s, url: s.get(url + "/redirect/4")
    yield "redirect to a post", lambda s, url: s.post(url + "/redirect-to?url=/anything&status_code=307", data="kept")
    yield "see other", lambda s, url: s.post(url + "/redirect-to?url=/get&status_code=303", data="dropped")
    yield "no redirect", lambda s, url: s.get(url + "/redirect/1", allow_redirects=False)
    yield "gzip", lambda s, url: s.get(url + "/gzip")
    yield "deflate", lambda s, url: s.get(url + "/deflate")
    yield "stream", stream
    yield "stream bytes", lambda s, url: s.get(url + "/stream-bytes/100000?seed=1&chunk_size=777", stream=True)
    yield "range", lambda s, url: s.get(url + "/range/5000", headers={"range": "bytes=10-99"})
    yield "range past the end", lambda s, url: s.get(url + "/range/100", headers={"range": "bytes=500-600"})
    yield "cookies", lambda s, url: s.get(url + "/cookies/set?one=1&two=2")
    yield "cookies kept", lambda s, url: s.get(url + "/cookies")
    yield "cookie gone", lambda s, url: s.get(url + "/cookies/delete?one")
    yield "basic auth", lambda s, url: s.get(url + "/basic-auth/me/secret", auth=("me", "secret"))
    yield "wrong password", lambda s, url: s.get(url + "/basic-auth/me/secret", auth=("me", "no"))
    yield "bearer", lambda s, url: s.get(url + "/bearer", headers={"authorization": "Bearer abc"})
    yield "cache", lambda s, url: s.get(url + "/cache", headers={"if-modified-since": "Mon, 01 Jan 2024 00:00:00 GMT"})
    yield "etag", lambda s, url: s.get(url + "/etag/tag", headers={"if-match": '"other"'})
    yield "encoding", lambda s, url: s.get(url + "/encoding/utf8")
    yield "file", lambda s, url: s.post(url + "/anything", data=b"--B\r\nContent-Disposition: form-data; name=\"f\"; "
                                        b"filename=\"f\"\r\n\r\nx\r\n--B--\r\n",
                                        headers={"content-type": "multipart/form-data; boundary=B"})
    yield "late", lambda s, url: s.get(url + "/delay/1")
    for status in (200, 201, 202, 204, 304, 400, 404, 418, 429, 500, 503):
        yield f"status {status}", lambda s, url, c=status: s.get(f"{url}/status/{c}")


def seen(session, url, ask):
    answer = ask(session, url)
    headers = sorted((n.lower(), v) for n, v in answer.headers.items() if n.lower() not in CHANGES)
    body = answer.content
    if "json" in answer.headers.get("content-type", ""):
        body = [plain(json.loads(line)) for line in ([body] if ask is not stream else body.splitlines()) if line]
        # The length of what it tells about forwarding.
        headers = [(name, value) for name, value in headers if name != "content-length"]
    hops = [(hop.status_code, hop.headers.get("location")) for hop in answer.history]
    return answer.status_code, answer.reason, headers, body, hops, sorted(session.cookies.items())


def main():
    direct, through = (f"http://{address}" for address in sys.argv[1:])
    differ, count = 0, 0
    sessions = requests.Session(), requests.Session()
    for session in sessions:
        # httpbin tells what it was called, and cookies belong to a name.
        session.headers["host"] = "shop.example"
        session.trust_env = False
    for name, ask in cases():
        count += 1
        one, other = seen(sessions[0], direct, ask), seen(sessions[1], through, ask)
        if one != other:
            differ += 1
            print(f"{name} differs\n  direct:  {one}\n  through: {other}")
    print(f"{count} cases, {differ or 'all the same'}")
    sys.exit(differ > 0)


main()
