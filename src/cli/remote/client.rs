//! A small client of the admin API: one connection per question, bounded, with a deadline.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet, time};

use super::{To, UNREACHABLE};
use crate::{
    admin::{base64, text},
    cli::Failure,
};

/// Where the API is, and who asks.
pub(super) struct Client {
    authority: String,
    credentials: HeaderValue,
}

/// Server-sent events as they come.
pub(super) struct Events {
    body: Incoming,
    read: BytesMut,
    _connection: JoinSet<()>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);
/// A heartbeat comes every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
const ANSWER_AT_MOST: usize = 16 << 20;

impl Client {
    pub(super) fn new(to: &To) -> Result<Self, Failure> {
        let bad = |why: &str| Failure { code: 2, text: format!("--admin {}: {why}", to.admin) };
        let url: Uri = to.admin.parse().map_err(|_| bad("not a URL"))?;
        if url.scheme_str() != Some("http") {
            return Err(bad("write http://HOST:PORT; the admin API itself speaks plain HTTP"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(bad("write http://HOST:PORT without a path"));
        }
        let authority = url.authority().ok_or_else(|| bad("no host"))?;
        let port = authority.port_u16().unwrap_or(80);
        let pair = format!("{}:{}", user(), to.token.as_deref().unwrap_or_default());
        let basic = format!("Basic {}", base64::encode(pair.as_bytes()));
        let mut credentials = HeaderValue::try_from(basic).map_err(|_| bad("unusable token"))?;
        credentials.set_sensitive(true);
        Ok(Self { authority: format!("{}:{port}", authority.host()), credentials })
    }

    pub(super) async fn get(
        &self,
        path: &str,
        asked: &[(&str, &Option<String>)],
    ) -> Result<Value, Failure> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in asked {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        self.ask(Method::GET, &format!("{path}?{}", query.finish()), Bytes::new()).await
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Result<Value, Failure> {
        self.ask(Method::POST, path, body.to_string().into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Value, Failure> {
        let mut connection = JoinSet::new();
        let exchange = async {
            let response = self.send(&mut connection, method, path, body).await?;
            whole(response).await
        };
        let late = |_| self.unreachable("no answer within 35 s");
        time::timeout(ANSWER_TIMEOUT, exchange).await.map_err(late)?
    }

    pub(super) async fn events(&self, path: &str) -> Result<Events, Failure> {
        let mut connection = JoinSet::new();
        let response = self.send(&mut connection, Method::GET, path, Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            whole(response).await?;
            return Err(Failure { code: 1, text: "no event stream".into() });
        }
        Ok(Events { body: response.into_body(), read: BytesMut::new(), _connection: connection })
    }

    async fn send(
        &self,
        connection: &mut JoinSet<()>,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let connecting = time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.authority));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unreachable(error)),
            Err(_) => return Err(self.unreachable("no connection within 5 s")),
        };
        let broken = |error: hyper::Error| self.unreachable(error);
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        connection.spawn(async move {
            // What goes wrong on the connection is told by the exchange on it.
            let _ = driver.await;
        });
        let mut request = Request::builder()
            .method(&method)
            .uri(format!("/api/v1{path}"))
            .header(header::HOST, &self.authority)
            .header(header::AUTHORIZATION, self.credentials.clone());
        if method == Method::POST {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(Failure::general)?;
        sender.send_request(request).await.map_err(broken)
    }

    fn unreachable(&self, why: impl std::fmt::Display) -> Failure {
        let text = format!("cannot reach the admin API at http://{}: {why}", self.authority);
        Failure { code: UNREACHABLE, text }
    }
}

/// The JSON of an answer; a problem is what the server said no with.
async fn whole(response: Response<Incoming>) -> Result<Value, Failure> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_AT_MOST).collect().await;
    let bytes = body.map_err(Failure::general)?.to_bytes();
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if status.is_success() {
        return match value {
            Value::Null => Err(Failure {
                code: 1,
                text: "the answer is not JSON: is this standin's admin API?".into(),
            }),
            value => Ok(value),
        };
    }
    let detail = value["detail"].as_str().map(text::line);
    let detail =
        detail.unwrap_or_else(|| "it does not say why; is this standin's admin API?".into());
    let hint = match status {
        StatusCode::UNAUTHORIZED => " (give --token or STANDIN_TOKEN)",
        _ => "",
    };
    Err(Failure { code: 1, text: format!("the server said no: {detail}{hint} [{status}]") })
}

impl Events {
    /// The data of the next event; none when the server ends the stream.
    pub(super) async fn next(&mut self) -> Result<Option<String>, Failure> {
        let lost = |why: &str| Failure {
            code: UNREACHABLE,
            text: format!("lost the event stream: {why}"),
        };
        loop {
            if let Some(end) = memchr::memmem::find(&self.read, b"\n\n") {
                let event = self.read.split_to(end + 2);
                match data(&event) {
                    Some(data) => return Ok(Some(data)),
                    None => continue, // a heartbeat
                }
            }
            if self.read.len() > ANSWER_AT_MOST {
                return Err(lost("an event without end"));
            }
            match time::timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    self.read.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()))
                }
                Ok(Some(Err(error))) => return Err(lost(&error.to_string())),
                Ok(None) => return Ok(None),
                Err(_) => return Err(lost("it is silent")),
            }
        }
    }
}

/// The data lines of one event.
fn data(event: &[u8]) -> Option<String> {
    let event = String::from_utf8_lossy(event);
    let lines: Vec<&str> = event
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.strip_prefix(' ').unwrap_or(data))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Who asks, for the audit log.
#[expect(clippy::disallowed_methods, reason = "a command of a person: its environment says who")]
fn user() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
    user.chars().filter(|c| !c.is_control() && *c != ':').take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_an_event_is_its_data_lines() {
        assert_eq!(data(b"event: runs\ndata: {\"a\":\ndata: 1}\n\n").unwrap(), "{\"a\":\n1}");
        assert_eq!(data(b": heartbeat\n\n"), None);
    }

    #[test]
    fn an_address_with_anything_but_host_and_port_is_refused() {
        let to = |admin: &str| To { admin: admin.into(), token: None, json: false };
        assert_eq!(Client::new(&to("http://[::1]:9900/")).ok().unwrap().authority, "[::1]:9900");
        assert_eq!(
            Client::new(&to("http://ops.example")).ok().unwrap().authority,
            "ops.example:80"
        );
        for bad in ["https://localhost:1", "localhost:9900", "http://localhost/x", "http://"] {
            assert_eq!(Client::new(&to(bad)).err().unwrap().code, 2, "{bad}");
        }
    }
}
