//! Configurations that must be refused. `# <-` marks each line with a fault.

/// The case, with an app where it has none.
pub fn complete(text: &str) -> String {
    match text.contains("upstream") {
        true => text.to_owned(),
        false => format!("{text}\n[upstream.app]\nendpoints = [\"http://127.0.0.1:3000\"]\n"),
    }
}

pub const CASES: &[(&str, &str)] = &[
    // What is not TOML.
    (
        "text without quotes",
        r#"
role = inline # <-
"#,
    ),
    (
        "a table never closed",
        r#"
[listen # <-
address = "127.0.0.1:1"
"#,
    ),
    (
        "an array never closed",
        r#"
[upstream.a]
endpoints = ["http://a:1"
timeout = "1s" # <-
body_idle = "1s"
"#,
    ),
    (
        "a key twice",
        r#"
drain = "1s"
drain = "2s" # <-
"#,
    ),
    (
        "a table twice",
        r#"
[log]
[listen]
[log] # <-
"#,
    ),
    (
        "two broken lines and a slip",
        r#"
role = inline # <-
drain = 5s # <-
worker = 2 # <-
"#,
    ),
    (
        "connections that contradict one another",
        r#"
[upstream.a]
endpoints = ["http://127.0.0.1:1"]
http2 = "alpn" # <-
default = true
[upstream.a.connections]
max = 1
keep_open = 2 # <-
ping = "1s" # <-
[upstream.b]
endpoints = ["http://127.0.0.1:2"]
http2 = "prior_knowledge"
[upstream.b.connections]
queue = 7 # <-
trust_idle = "10s" # <-
ping_timeout = "0s" # <-
[upstream.c]
endpoints = ["http://127.0.0.1:3"]
egress = "ways"
[upstream.c.connections]
max = 4 # <-
keep_open = 1 # <-
[egress.ways]
proxies = ["http://127.0.0.1:4"]
[upstream.d]
endpoints = ["http://127.0.0.1:5"]
[upstream.d.connections]
keep_open = 129 # <-
idle_time = "0s" # <-
"#,
    ),
    (
        "a limit of no connections",
        r#"
[upstream.d]
endpoints = ["http://127.0.0.1:5"]
connections = { max = 0 } # <-
"#,
    ),
    // Keys.
    (
        "a slip of the finger",
        r#"
[upstream.app]
endpoint = ["http://a:1"] # <-
endpoints = ["http://a:1"]
"#,
    ),
    (
        "an unknown table",
        r#"
[listne] # <-
address = "127.0.0.1:1"
"#,
    ),
    (
        "a key of another section",
        r#"
[route.a]
match = "/"
accept_if = "true" # <-
"#,
    ),
    (
        "a key of the top",
        r#"
[listen]
role = "inline" # <-
"#,
    ),
    (
        "parts not built yet",
        r#"
[listen]
tls = { cert = "c.pem" } # <-
proxy_protocol = true # <-
[store]
url = "postgres://db" # <-
seal_to = "age1" # <-
[admin]
users = [] # <-
[upstream.app]
endpoints = ["http://127.0.0.1:3000"]
http2 = true # <-
balance = "p2c" # <-
weight = 3 # <-
[route.a]
match = "/"
cache = {} # <-
drill = {} # <-
replay = { reconcile = {} } # <-
[notice] # <-
"#,
    ),
    (
        "ways out that lead nowhere",
        r#"
[upstream.app]
endpoints = ["http://127.0.0.1:3000"]
egress = "way" # <-
[upstream.partner]
endpoints = ["http://127.0.0.1:3001"]
egress = "ways"
default = true
[egress.ways]
proxies = [
    "http://10.0.0.1:3128#one",
    "http://me:Hunter2@10.0.0.2", # <-
    "http://10.0.0.3:3128#one", # <-
    { url = "socks5://10.0.0.4:1080" }, # <-
    { url = "http://10.0.0.5:3128", only_for = ["qoutes"] }, # <-
]
source = "ftp://10.0.0.1/list" # <-
password = "Hunter2" # <-
session = "body.account" # <-
sessions = 0 # <-
tries = 17 # <-
[egress.ways.cooling]
statuses = [200, 429] # <-
time = "2h" # <-
[egress.none] # <-
[route.quotes]
match = "/quotes"
upstream = "partner"
[route.quotes.egress]
only = ["one", "tow"] # <-
deny = ["one"]
session = "response.status == 200" # <-
[route.direct]
match = "/direct"
upstream = "far"
egress = { only = ["one"] } # <-
stand_in = { on = ["egress"], accept_if = "true", answer = { status = 201 } } # <-
[upstream.far]
endpoints = ["http://127.0.0.1:3002"]
"#,
    ),
    (
        "a name that no metric could bear",
        r#"
[upstream."a b"] # <-
endpoints = ["http://a:1"]
"#,
    ),
    (
        "required keys missing",
        r#"
[route.a] # <-
stand_in = {} # <- 2
"#,
    ),
    (
        "required keys of tables missing",
        r#"
[route.a]
match = "/"
app_dedupes = {} # <- 2
[route.a.stand_in]
accept_if = "true"
answer = {} # <-
at_most = { per_customer = {} } # <- 2
"#,
    ),
    // Types and values.
    (
        "a number for a duration",
        r#"
drain = 25 # <-
"#,
    ),
    (
        "a table for a string",
        r#"
role = {} # <-
"#,
    ),
    (
        "a string for a number",
        r#"
workers = "2" # <-
"#,
    ),
    (
        "a string for a table",
        r#"
listen = "127.0.0.1:8080" # <-
"#,
    ),
    (
        "a list of the wrong things",
        r#"
[upstream.app]
endpoints = ["http://a:1", 5, true] # <- 2
"#,
    ),
    (
        "a number out of range",
        r#"
[upstream.app]
endpoints = ["http://a:1"]
late_max = -1 # <-
breaker = { failures = 5000000000 } # <-
"#,
    ),
    (
        "zero where it cannot be",
        r#"
workers = 0 # <-
"#,
    ),
    (
        "limits that let nothing through",
        r#"
[upstream.app]
endpoints = ["http://127.0.0.1:3000"]
in_flight = 0 # <-
[route.a]
match = "/"
in_flight = 0 # <-
"#,
    ),
    (
        "thresholds that warn of nothing, or out of order",
        r#"
[route.a]
match = "/a"
watch = { slow = ["1s", "0s"] } # <- 2
[route.b]
match = "/b"
watch = { slow = ["5s", "1s"] } # <-
[route.c]
match = "/c"
watch = { slow = ["1s", "1s"] } # <-
[route.d]
match = "/d"
watch = { slow = ["1s", "2s", "3s", "4s", "5s", "6s", "7s", "8s", "9s"] } # <-
"#,
    ),
    (
        "no such word",
        r#"
[log]
format = "jsno" # <-
"#,
    ),
    (
        "bad durations",
        r#"
drain = "15" # <-
[upstream.app]
endpoints = ["http://127.0.0.1:3000"]
timeout = "-5s" # <-
connect_timeout = "4000d" # <-
body_idle = "soon" # <-
"#,
    ),
    (
        "bad sizes",
        r#"
[store]
max_bytes = "lots" # <-
[listen.limits]
body = 1000 # <-
copied_bodies = "-1" # <-
"#,
    ),
    (
        "bad addresses",
        r#"
[listen]
address = "localhost:8080" # <-
[admin]
address = "127.0.0.1" # <-
health = ":9901" # <-
"#,
    ),
    (
        "bad networks",
        r#"
[request_id]
trust = ["10.0.0.0/8", "ten", "10.0.0.0/99"] # <- 2
"#,
    ),
    (
        "a date in JSON",
        r#"
[route.a]
match = "/"
[route.a.stand_in]
accept_if = "true"
answer = { status = 200, json = { at = 2026-01-01, x = [nan] } } # <- 2
"#,
    ),
    // References.
    (
        "references that give nothing",
        r#"
[admin]
token = "${env:STANDIN_TEST_NOT_SET}" # <-
hosts = ["${file:not/there}", "${HOME}"] # <- 2
[store]
path = "${env:X" # <-
ephemeral = "${env:STANDIN_TEST_NOT_SET}" # <-
max_bytes = "${env:STANDIN_TEST_NOT_SET}" # <-
"#,
    ),
    // Rules.
    (
        "rules that do not compile",
        r#"
[route.a]
match = "POST /"
dedupe_by = "body." # <-
principal = "" # <-
sequence_by = "nobody.id" # <-
labels = { order = "body.order ==", ok = "body.order" } # <-
[route.a.stand_in]
accept_if = "body.cents > 0 && body.cents <= ((5000" # <-
at_most = { open_sum = 5, sum_of = "lenght(body.items)" } # <-
answer = { status = 200 }
[route.a.replay]
success = "response.status ==" # <-
"#,
    ),
    (
        "rules over an answer that is not there",
        r#"
[route.a]
match = "POST /"
dedupe_by = "response.body.id" # <-
[route.a.stand_in]
accept_if = "response.status == 200" # <-
answer = { status = 200 }
[route.a.replay]
success = "response.status == 200"
"#,
    ),
    (
        "templates that do not compile",
        r#"
[route.a]
match = "POST /a"
[route.a.stand_in]
accept_if = "true"
[route.a.stand_in.answer]
status = 201
[route.a.stand_in.answer.headers]
location = "/orders/{{ request.id" # <-
[route.a.stand_in.answer.json]
id = "{{ request.id" # <-
ok = "{{ request.id }}"
list = ["{{ body.x }}", "{% if %}"] # <-
[route.b]
match = "POST /b"
[route.b.stand_in]
accept_if = "true"
[route.b.stand_in.answer]
status = 201
body = "{{ body.name | nofilter }}" # <-
[route.c]
match = "POST /c"
[route.c.stand_in]
accept_if = "true"
[route.c.stand_in.answer]
status = 201
headers = { Content-Type = "application/json" }
body = '{ "name": "{{ body.name }}" }' # <-
"#,
    ),
    // Upstreams.
    (
        "no app at all",
        r#"
role = "inline"
# upstream
"#,
    ),
    (
        "endpoints that are none",
        r#"
[upstream.a]
endpoints = ["ftp://a:1", "a:1", "http://a", "http://a:1/path"] # <- 4
default = true
[upstream.b]
endpoints = ["http://user:hunter2@b:1"] # <-
[upstream.c] # <-
[upstream.d]
endpoints = ["http://d:1", "http://d:1"] # <-
"#,
    ),
    (
        "several apps and no default",
        r#"
[upstream.a] # <-
endpoints = ["http://a:1"]
[upstream.b]
endpoints = ["http://b:1"]
[route.x]
match = "/"
"#,
    ),
    (
        "two defaults",
        r#"
[upstream.a]
endpoints = ["http://a:1"]
default = true
[upstream.b]
endpoints = ["http://b:1"]
default = true # <-
"#,
    ),
    (
        "an app that is standin itself",
        r#"
[upstream.a]
endpoints = ["http://localhost:8080"] # <-
"#,
    ),
    (
        "times that cannot be",
        r#"
[upstream.app]
endpoints = ["http://127.0.0.1:3000"]
timeout = "0s" # <-
health = { path = "healthz", interval = "0s" } # <- 2
[upstream.app.breaker]
failures = 0 # <-
min_open = "1m" # <-
"#,
    ),
    (
        "a maximum below its minimum",
        r#"
[upstream.a]
endpoints = ["http://a:1"]
breaker = { min_open = "2s", max_open = "1s" } # <-
"#,
    ),
    // Listeners.
    (
        "one address for two",
        r#"
[listen]
address = "0.0.0.0:9900" # <-
"#,
    ),
    (
        "health where clients are",
        r#"
[admin]
health = "127.0.0.1:8080" # <-
"#,
    ),
    (
        "an open admin without a token",
        r#"
[admin]
address = "0.0.0.0:9900" # <-
"#,
    ),
    (
        "a token that is none",
        r#"
[admin]
token = "two words" # <-
hosts = ["http://x/"] # <-
"#,
    ),
    (
        "an empty token",
        r#"
[admin]
token = "" # <-
"#,
    ),
    (
        "limits of zero",
        r#"
[listen.limits]
head = "1KiB" # <-
headers = 0 # <-
body = "0B" # <-
in_flight = 0 # <-
connections = 0 # <-
head_timeout = "0s" # <-
body_idle = "0s" # <-
write_idle = "0s" # <-
"#,
    ),
    (
        "a request id that breaks requests",
        r#"
[request_id]
header = "Authorization" # <-
"#,
    ),
    (
        "a request id that is no header",
        r#"
[request_id]
header = "my id" # <-
"#,
    ),
    (
        "a store too small",
        r#"
[store]
path = "" # <-
max_bytes = "1KiB" # <-
retention = "0s" # <-
"#,
    ),
    (
        "a signing key that can be guessed",
        r#"
[replay]
signing_key = "short" # <-
"#,
    ),
    // Routes.
    (
        "matches that are none",
        r#"
[route.a]
match = "post /a" # <-
[route.b]
match = "/a/{rest...}/b" # <-
[route.c]
match = "shop.example:443/a" # <-
[route.d]
match = "/a/x{id}" # <-
[route.e]
match = "checkout" # <-
[route.f]
match = "TRACE /" # <-
[route.g]
match = "/a/%2e%2e/b" # <-
"#,
    ),
    (
        "two routes for the same requests",
        r#"
[route.b]
match = "POST /a/{x}"
[route.a]
match = "POST /a/{y}" # <-
"#,
    ),
    (
        "an app that is not there",
        r#"
[upstream.shop]
endpoints = ["http://a:1"]
[route.a]
match = "/"
upstream = "shpo" # <-
timeout = "0s" # <-
"#,
    ),
    // Stand-ins.
    (
        "causes without protection",
        r#"
[route.a]
match = "POST /"
[route.a.stand_in]
on = ["connect", "timeout", "5xx", "always"] # <-
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "a standby without protection",
        r#"
role = "standby"
[route.a]
match = "POST /"
[route.a.stand_in] # <-
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "no causes",
        r#"
[route.a]
match = "POST /"
[route.a.stand_in]
on = [] # <-
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "caps that are none",
        r#"
[route.a]
match = "POST /a"
[route.a.stand_in]
accept_if = "true"
answer = { status = 200 }
max_body = "0B" # <-
[route.a.stand_in.at_most]
open = 0 # <-
open_sum = 5 # <-
per_customer = { count = 0, within = "0s" } # <- 2
[route.b]
match = "POST /b"
[route.b.stand_in]
accept_if = "true"
answer = { status = 200 }
at_most = { sum_of = "body.cents" } # <-
[route.c]
match = "POST /c"
[route.c.stand_in]
accept_if = "true"
answer = { status = 200 }
at_most = { sum_of = "body.cents", open_sum = -1 } # <-
"#,
    ),
    (
        "an expiry the app would forget",
        r#"
[route.a]
match = "POST /"
app_dedupes = { by = "x-request-id", for = "24h" } # <-
[route.a.stand_in]
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "an expiry longer than keys live",
        r#"
[route.a]
match = "POST /"
[route.a.stand_in]
expires = "8d" # <-
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "keys that live too short",
        r#"
[store]
dedupe_window = "1h" # <-
[route.a]
match = "POST /"
[route.a.stand_in]
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "an expiry before the first replay",
        r#"
[route.a]
match = "POST /"
[route.a.stand_in]
expires = "30s" # <-
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "a body that no budget holds",
        r#"
[listen.limits]
copied_bodies = "1MiB"
[route.a]
match = "POST /"
[route.a.stand_in]
max_body = "2MiB" # <-
accept_if = "true"
answer = { status = 200 }
"#,
    ),
    (
        "answers that are none",
        r#"
[route.a]
match = "POST /a"
[route.a.stand_in]
accept_if = "true"
[route.a.stand_in.answer]
status = 199 # <-
json = {}
body = "x" # <-
[route.b]
match = "POST /b"
[route.b.stand_in]
accept_if = "true"
[route.b.stand_in.answer]
status = 204 # <-
body = "x"
[route.c]
match = "POST /c"
[route.c.stand_in]
accept_if = "true"
[route.c.stand_in.answer]
status = 200
body_file = "not/there.html" # <-
"#,
    ),
    (
        "headers that no answer may have",
        r#"
[route.a]
match = "POST /a"
[route.a.stand_in]
accept_if = "true"
[route.a.stand_in.answer]
status = 200
[route.a.stand_in.answer.headers]
Content-Length = "5" # <-
transfer-encoding = "chunked" # <-
connection = "close" # <-
date = "now" # <-
X-Request-Id = "1" # <-
"not a name" = "1" # <-
x-bad = "two\nlines" # <-
x-two = "1"
X-Two = "2" # <-
"#,
    ),
    // Replays.
    (
        "replays that cannot be",
        r#"
[route.a]
match = "POST /a"
[route.a.replay]
max_attempts = 100_000 # <-
pace = 0 # <-
min_backoff = "10m" # <-
success = [] # <-
retry = [500, 99] # <-
declined = [500] # <-
already_applied = 409 # <-
set_headers = { host = "ok.example", content-length = "1", x-request-id = "1", "b d" = "1" } # <- 3
redact = ["host", "Content-Length", "cookie", "idempotency-key", "te"] # <- 4
"#,
    ),
];

/// Twelve faults of many kinds.
pub const A_DOZEN: &str = r#"
role = "inlnie" # <-
drain = 25 # <-
[listen]
address = "localhost:8080" # <-
tls = true # <-
[admin]
token = "${env:STANDIN_TEST_NOT_SET}" # <-
[upstream.shop]
endpoints = ["ftp://127.0.0.1:3000"] # <-
tiemout = "5s" # <-
[route.checkout]
match = "post /checkout" # <-
upstream = "shpo" # <-
[route.checkout.stand_in]
on = ["timeout"] # <-
at_most = { open_sum = 5 } # <-
accept_if = "true"
answer = { status = 99 } # <-
"#;

/// Each has the secret of the file `secret` at a place where it is refused, or is kept.
pub const WITH_SECRETS: &[&str] = &[
    "role = \"${file:secret}\"\n",
    "drain = \"${file:secret}\"\n",
    "listen = \"${file:secret}\"\n",
    "[listen]\naddress = \"${file:secret}\"\n",
    "[store]\nmax_bytes = \"${file:secret}\"\n",
    "[request_id]\ntrust = [\"${file:secret}\"]\n",
    "[request_id]\nheader = \"${file:secret} x\"\n",
    "[admin]\ntoken = \"${file:secret} with a space\"\n",
    "[admin]\ntoken = \"${file:secret}\"\n",
    "[replay]\nsigning_key = \"${file:secret}\"\n",
    "[admin]\nhosts = [\"http://${file:secret}/\"]\n",
    "[upstream.a]\nendpoints = [\"http://me:${file:secret}@a:1\"]\n",
    "[upstream.a]\nendpoints = [\"http://a:1/${file:secret}\"]\n",
    "[upstream.a]\nendpoints = [\"ftp://${file:secret}\"]\n",
    "[upstream.a]\nendpoints = [\"http://a:1\"]\nhealth = { path = \"${file:secret}\" }\n",
    "[egress.a]\nproxies = [\"http://me:${file:secret}@a\"]\n",
    "[egress.a]\nproxies = [{ url = \"https://me:${file:secret}@a:1\" }]\n",
    "[egress.a]\nproxies = [\"http://a:1\"]\nuser = \"${file:secret}\"\npassword = \"${file:secret}\"\n",
    "[egress.a]\nsource = \"http://me:${file:secret}@a/list\"\n",
    "[route.a]\nmatch = \"/a?${file:secret}\"\n",
    "[route.a]\nmatch = \"${file:secret}\"\n",
    "[route.a]\nmatch = \"/${file:secret}\"\n[route.b]\nmatch = \"/${file:secret}\"\n",
    "[route.a]\nmatch = \"/\"\nupstream = \"${file:secret}\"\n[upstream.b]\nendpoints = [\"http://a:1\"]\n",
    "[route.a]\nmatch = \"/\"\ndedupe_by = \"'${file:secret}\"\n",
    "[route.a]\nmatch = \"/\"\nreplay = { set_headers = { authorization = \"Bearer ${file:secret}\" } }\n",
    "[route.a]\nmatch = \"/\"\nreplay = { set_headers = { authorization = \"Bearer\\n${file:secret}\" } }\n",
    "[route.a]\nmatch = \"/\"\nreplay = { redact = [\"${file:secret} x\"] }\n",
    "[route.a]\nmatch = \"/\"\nreplay = { success = \"${file:secret} ==\" }\n",
    "[route.a]\nmatch = \"POST /\"\nstand_in = { accept_if = \"request.headers['x'] == '${file:secret}'\", answer = { status = 200, body_file = \"${file:secret}\" } }\n",
    "[route.a]\nmatch = \"POST /\"\nstand_in = { accept_if = \"request.query == '${file:secret}'\", answer = { status = 200, body = \"${file:secret}\" } }\n",
];

/// A route that may stand in for everything.
pub const PROTECTED: &str = r#"
[route.checkout]
match = "POST /checkout"
app_dedupes = { by = "x-request-id", for = "7d" }
stand_in = { accept_if = "body.cents <= 5000", answer = { status = 201 } }
"#;

/// Every kind of route.
pub const FOR_CHECK: &str = r#"
[upstream.shop]
endpoints = ["http://10.0.0.7:3000", "http://10.0.0.8:3000"]
default = true
health = { path = "/healthz" }
[upstream.mail]
endpoints = ["http://127.0.0.1:3025"]

[route.rest]
match = "/api/{rest...}"
timeout = "1m"

[route.checkout]
match = "POST /api/checkout"
app_dedupes = { by = "x-request-id", for = "7d" }
dedupe_by = "body.cart_id"
principal = "jwt.sub"
labels = { order = "body.order", email = "body.email" }

[route.checkout.stand_in]
on = ["connect", "breaker", "timeout", "reset", "5xx"]
accept_if = """
  body.currency == "USD" &&
  body.cents <= 5000"""
at_most = { open = 500, open_sum = 1_000_000, sum_of = "body.cents", per_customer = { count = 3, within = "1h" } }
answer = { status = 201, headers = { X-Kind = "accepted" }, json = { id = "{{ request.id }}" } }
expires = "3d"

[route.checkout.replay]
redact = ["Cookie"]
set_headers = { Authorization = "Bearer token" }

[route.letter]
match = "PUT /api/letters/{id}"
upstream = "mail"
stand_in = { accept_if = "true", answer = { status = 202, body = "Thank you" }, unanswered = "replay" }
replay = { trigger = "manual", redact = ["authorization"] }

[admin]
address = "0.0.0.0:9900"
token = "0123456789abcdef0123"
health = "0.0.0.0:9901"
"#;
