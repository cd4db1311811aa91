//! In front of apps that no one here wrote, asked by clients that everyone knows: what comes through standin is what
//! comes without it. `./test` installs them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::support::{Process, Standin, folder};

#[tokio::test]
async fn curl_sees_the_same_httpbin_direct_and_through() {
    curl_sees_the_same(Way::PassThrough).await;
}

#[tokio::test]
async fn curl_sees_the_same_httpbin_through_a_route_that_stands_in() {
    curl_sees_the_same(Way::StandIn).await;
}

#[tokio::test]
async fn curl_sees_the_same_httpbin_while_entries_are_open() {
    curl_sees_the_same(Way::EntriesOpen).await;
}

/// The same `curl` command, once direct and once through.
async fn curl_sees_the_same(way: Way) {
    let httpbin = Httpbin::start().await;
    let standin = way.to(httpbin.address, "/get").await;
    let files = folder();
    let upload = files.path().join("upload");
    std::fs::write(&upload, "0123456789".repeat(30_000)).unwrap();
    let upload = format!("@{}", upload.display());
    let chunked = ["-H", "transfer-encoding: chunked"];
    let cases: &[&[&str]] = &[
        &["/get?a=1&b=%20%2F&c="],
        &["-I", "/get"],
        &["-X", "POST", "-d", "a=1&b=2", "/post"],
        &["-X", "POST", "--data-binary", &upload, "/post"],
        &["-X", "POST", chunked[0], chunked[1], "--data-binary", &upload, "/post"],
        &["-H", "expect: 100-continue", "--data-binary", &upload, "/post"],
        &["-X", "PUT", "-d", "{}", "-H", "content-type: application/json", "/put"],
        &["-X", "PATCH", "-d", "x", "/patch"],
        &["-X", "DELETE", "/delete"],
        &["-X", "OPTIONS", "/get"],
        &["/status/204"],
        &["/status/304"],
        &["/status/418"],
        &["/status/500"],
        &["-L", "/redirect/3"],
        &["-L", "/relative-redirect/2"],
        &["/absolute-redirect/1"],
        &["--compressed", "/gzip"],
        // Not asked for decoded: only its head, since the bytes hold forwarding headers.
        &["-o", "/dev/null", "-D", "-", "/gzip"],
        &["--compressed", "/deflate"],
        &["/encoding/utf8"],
        &["/stream-bytes/70000?seed=7&chunk_size=1000"],
        &["/stream/20"],
        &["/range/10000"],
        &["-r", "100-299", "/range/10000"],
        &["-r", "-100", "/range/10000"],
        &["-c", "-", "/cookies/set?one=1&two=2"],
        &["-b", "one=1; two=2", "/cookies"],
        &["-u", "me:secret", "/basic-auth/me/secret"],
        &["-u", "me:wrong", "/basic-auth/me/secret"],
        &["-H", "if-none-match: \"tag\"", "/etag/tag"],
        &["-H", "x-empty;", "-H", "x-twice: 1", "-H", "x-twice: 2", "/headers"],
        &["--http1.0", "/get"],
        &["/drip?duration=1&numbytes=5&code=200&delay=0"],
        &["/image/png"],
        &["/links/3/0"],
        &["/response-headers?x-one=1&x-one=2&x-two=%C3%A9"],
        &["--path-as-is", "/anything/a/../b//c%2Fd"],
    ];
    for case in cases {
        let (path, options) = case.split_last().unwrap();
        let asked = |address: SocketAddr| {
            let url = format!("http://{address}{path}");
            let mut curl = Command::new("curl");
            // One name for both, since httpbin tells what it was called.
            curl.args(["-sS", "-i", "--max-time", "30", "-H", "host: shop.example"]);
            run(curl.args(options).arg(url))
        };
        let (direct, through) = (asked(httpbin.address), asked(standin.address()));
        assert_eq!(comparable(&through), comparable(&direct), "curl {case:?} {way:?}");
    }
    assert_eq!(standin.entries().await.len(), way.entries());
}

#[tokio::test]
async fn curl_speaks_http2_to_standin_and_sees_the_same() {
    let httpbin = Httpbin::start().await;
    let standin = Standin::start(&in_front_of(httpbin.address)).await;
    for path in [
        "/get?a=1",
        "/image/png",
        "/stream/5",
        "/range/1000",
        "/status/404",
        "/stream-bytes/50000?seed=3",
    ] {
        let body = |options: &[&str], address: SocketAddr| {
            let url = format!("http://{address}{path}");
            let mut curl = Command::new("curl");
            let format = "\n%{http_code} %{content_type}";
            curl.args(["-sS", "--max-time", "30", "-H", "host: shop.example", "-w", format]);
            run(curl.args(options).arg(url)).stdout
        };
        let direct = body(&["--http1.1"], httpbin.address);
        let through = body(&["--http2-prior-knowledge"], standin.address());
        let plain = |bytes: &[u8]| without_forwarding(&String::from_utf8_lossy(bytes));
        assert_eq!(plain(&through), plain(&direct), "{path}");
    }
}

#[tokio::test]
async fn python_requests_sees_the_same_httpbin_direct_and_through() {
    python_requests_sees_the_same(Way::PassThrough).await;
}

#[tokio::test]
async fn python_requests_sees_the_same_httpbin_through_a_route_that_stands_in() {
    python_requests_sees_the_same(Way::StandIn).await;
}

#[tokio::test]
async fn python_requests_sees_the_same_httpbin_while_entries_are_open() {
    python_requests_sees_the_same(Way::EntriesOpen).await;
}

async fn python_requests_sees_the_same(way: Way) {
    let httpbin = Httpbin::start().await;
    let standin = way.to(httpbin.address, "/get").await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity/compare.py");
    let done = Command::new(venv("python"))
        .arg(script)
        .args([httpbin.address.to_string(), standin.address().to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("cases, all the same"), "{said}");
    assert_eq!(standin.entries().await.len(), way.entries());
}

#[tokio::test]
async fn large_bodies_stream_through_nginx_in_little_memory() {
    large_bodies_stream(Way::PassThrough).await;
}

/// What is larger than `max_body` is not kept, so it need not be copied.
#[tokio::test]
async fn large_bodies_stream_through_a_route_that_stands_in() {
    large_bodies_stream(Way::StandIn).await;
}

#[tokio::test]
async fn large_bodies_stream_while_entries_are_open() {
    large_bodies_stream(Way::EntriesOpen).await;
}

/// 100 MiB each way, with a length and in chunks; standin neither keeps them nor grows by them.
async fn large_bodies_stream(way: Way) {
    let nginx = Nginx::start().await;
    let mut standin = way.to(nginx.address, "/index").await;
    let (there, back) = (nginx.root().join("there"), nginx.root().join("back"));
    make_large(&there);
    let url = |path: &str| format!("http://{}{path}", standin.address());
    let (get, put, chunked) = (url("/there"), url("/up/again"), url("/up/chunked"));
    assert_eq!(standin.get("/index").await.text(), "hello");
    let process = standin.process();
    process.forget_the_peak();
    let before = process.memory();

    run(Command::new("curl").args(["-sS", "-f", "-o"]).arg(&back).arg(get));
    assert!(same(&there, &back), "the download differs");
    run(Command::new("curl").args(["-sS", "-f", "-T"]).arg(&there).arg(put));
    assert!(same(&there, &nginx.root().join("up/again")), "the upload differs");
    let in_chunks = ["-sS", "-f", "-H", "transfer-encoding: chunked", "-T"];
    run(Command::new("curl").args(in_chunks).arg(&there).arg(chunked));
    assert!(same(&there, &nginx.root().join("up/chunked")), "the upload in chunks differs");

    let growth = process.peak_memory().saturating_sub(before);
    println!("{} KiB more at the peak", growth >> 10);
    assert!(growth <= 16 << 20, "grew by {growth} bytes from {before}");
    assert_eq!(standin.entries().await.len(), way.entries());
}

#[tokio::test]
async fn a_websocket_echo_works_through_standin() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fidelity");
    let mut server = Command::new(venv("python"));
    let mut server = Process::spawn("echo", server.arg(scripts.join("websocket_echo.py")));
    let address: SocketAddr = server.says("listening on ").await.parse().unwrap();
    let standin = Standin::start(&in_front_of(address)).await;
    let client = scripts.join("websocket_client.py");
    let url = format!("ws://{}/echo", standin.address());
    let done = Command::new(venv("python")).arg(client).arg(url).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "all echoed");
}

/// How requests take their way through standin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// No route stands in: nothing is copied.
    PassThrough,
    /// One route takes all there is and stands in: bodies are copied aside.
    StandIn,
    /// The same, and something is open: bodies are read before the app is asked, and looked for in the store.
    EntriesOpen,
}

impl Way {
    /// A standin before `app`, which answers to a GET of `index`.
    async fn to(self, app: SocketAddr, index: &str) -> Standin {
        let config = in_front_of(app);
        if self == Self::PassThrough {
            return Standin::start(&config).await;
        }
        let standin = Standin::start(&(config + CATCH_ALL)).await;
        assert_eq!(standin.get(index).await.status, 200);
        if self == Self::EntriesOpen {
            standin.mode("forced", serde_json::json!({ "route": "open" })).await;
            let open = standin.post("/open", "{}").await;
            assert!(open.header("proxy-status").contains("receipt"), "{open:?}");
        }
        standin
    }

    fn entries(self) -> usize {
        usize::from(self == Self::EntriesOpen)
    }
}

const CATCH_ALL: &str = r#"
[route.all]
match = "/{path...}"
app_dedupes = { by = "x-request-id", for = "7d" }

[route.all.stand_in]
accept_if = "true"
max_body = "1MiB"
answer = { status = 201 }

[route.open]
match = "POST /open"
app_dedupes = { by = "x-request-id", for = "7d" }

[route.open.stand_in]
accept_if = "true"
answer = { status = 201 }
"#;

fn in_front_of(app: SocketAddr) -> String {
    format!("[upstream.app]\nendpoints = [\"http://{app}\"]\n")
}

/// gunicorn with httpbin on a free port.
struct Httpbin {
    _process: Process,
    address: SocketAddr,
}

impl Httpbin {
    async fn start() -> Self {
        let mut gunicorn = Command::new(venv("gunicorn"));
        gunicorn.args([
            "--bind",
            "127.0.0.1:0",
            "--worker-class",
            "gthread",
            "--threads",
            "8",
            "--no-control-socket",
        ]);
        let mut process = Process::spawn("httpbin", gunicorn.arg("httpbin:app"));
        let ready = process.says_somewhere("Listening at: http://").await;
        let address = ready.split(' ').next().unwrap().parse().unwrap();
        Self { _process: process, address }
    }
}

/// nginx on a free port, taking uploads.
struct Nginx {
    _process: Process,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Nginx {
    async fn start() -> Self {
        let folder = folder();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("up")).unwrap();
        std::fs::write(root.join("index"), "hello").unwrap();
        // nginx cannot choose a port and say which; a socket that is only bound keeps this one free of others.
        let reserved = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let reserved = reserved.unwrap();
        reserved.set_reuse_address(true).unwrap();
        reserved.set_reuse_port(true).unwrap();
        reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = reserved.local_addr().unwrap().as_socket().unwrap();
        let config = NGINX
            .replace("{address}", &address.to_string())
            .replace("{folder}", folder.path().to_str().unwrap());
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(folder.path()).arg("-e").arg("stderr").arg("-c").arg(&file);
        let mut process = Process::spawn("nginx", &mut nginx);
        process.says_somewhere("start worker process ").await;
        Self { _process: process, address, folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

const NGINX: &str = "
daemon off;
master_process on;
user root;
pid {folder}/pid;
error_log stderr notice;
events {}
http {
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u;
    scgi_temp_path {folder}/s;
    client_max_body_size 0;
    server {
        listen {address} reuseport;
        root {folder}/root;
        location /up/ { dav_methods PUT; }
    }
}
";

fn venv(program: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let program = target.join("venv/bin").join(program);
    assert!(program.exists(), "{} is missing: run ./test, which installs it", program.display());
    program
}

/// What it wrote; it must succeed.
fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

/// Status lines, headers without order, bodies; without what a proxy must add or what no two answers share.
fn comparable(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut answers = Vec::new();
    let mut rest = &*text;
    // curl shows the heads of interim answers and redirects too, each with its end.
    while let Some((head, after)) = rest.split_once("\r\n\r\n") {
        let mut lines: Vec<String> = head.split("\r\n").map(header_in_lower_case).collect();
        let changes =
            ["date:", "via:", "x-request-id:", "connection:", "keep-alive:", "transfer-encoding:"];
        lines.retain(|line| !changes.iter().any(|name| line.starts_with(name)));
        // The length of what httpbin tells about forwarding headers.
        if lines.iter().any(|line| line == "content-type: application/json") {
            lines.retain(|line| !line.starts_with("content-length:"));
        }
        lines[1..].sort();
        // 100 (Continue) belongs to one hop.
        if !lines[0].contains(" 100 ") {
            answers.push(lines.join("\n"));
        }
        rest = after;
        if !rest.starts_with("HTTP/") {
            break;
        }
    }
    answers.push(without_forwarding(rest));
    answers
}

fn header_in_lower_case(line: &str) -> String {
    match line.split_once(':') {
        Some((name, value)) if !line.starts_with("HTTP/") => {
            format!("{}:{value}", name.to_ascii_lowercase())
        }
        // httpbin answers HTTP/1.0 requests as 1.0; a proxy answers with its own version.
        _ => line.replace("HTTP/1.0", "HTTP/1.1"),
    }
}

/// httpbin tells the headers that it got: without those that a proxy adds or takes.
fn without_forwarding(body: &str) -> String {
    let plain = |text: &str| -> Option<String> {
        let mut json: serde_json::Value = serde_json::from_str(text).ok()?;
        let headers = json.get_mut("headers")?.as_object_mut()?;
        headers.retain(|name, _| !ADDED.iter().any(|added| name.starts_with(added)));
        headers.sort_keys();
        Some(json.to_string())
    };
    let line_by_line =
        || body.lines().map(|line| plain(line).unwrap_or_else(|| line.to_owned())).collect();
    plain(body).map_or_else(line_by_line, |whole| vec![whole]).join("\n")
}

const ADDED: [&str; 8] = [
    "Via",
    "X-Forwarded-",
    "X-Request-Id",
    "Forwarded",
    "Connection",
    "Transfer-Encoding",
    "Expect",
    "Idempotency-Key",
];

fn make_large(file: &Path) {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(file).unwrap());
    let mut state = 1_u64;
    for _ in 0..(100 << 20) / 64 {
        let mut block = [0; 64];
        for word in block.chunks_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
}

fn same(one: &Path, other: &Path) -> bool {
    Command::new("cmp").args([one, other]).status().unwrap().success()
}
