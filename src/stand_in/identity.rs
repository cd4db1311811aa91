//! Who asks, and what makes two requests the same: principal, key, fingerprint, derived request id, sequence.
//!
//! Keys are scoped by route and principal, so that nobody can meet another's entry by choosing another's key.

use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::IDEMPOTENCY_KEY;
use crate::{
    config::RouteConfig,
    expr::{Expr, ExprFault, Facts, bearer_claims},
    store::{Digest, Identity},
};

/// What makes the key of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `dedupe_by` of the route.
    Expression,
    /// The client's `Idempotency-Key`.
    Client,
    /// Nothing better: the request id.
    RequestId,
}

/// A request's identity, and what is doubtful about it.
#[derive(Clone, Debug)]
pub struct Identified {
    pub identity: Identity,
    pub kind: KeyKind,
    /// Entries of one sequence are replayed in order.
    pub sequence: Option<Digest>,
    /// `principal`, `dedupe_by` or `sequence_by` gave no value: good enough to forward, not to stand in.
    pub doubt: Option<ExprFault>,
}

/// What is wrong with the client's `Idempotency-Key`: to be answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("Idempotency-Key is given more than once")]
    Repeated,
    #[error("Idempotency-Key is empty")]
    Empty,
    #[error("Idempotency-Key is longer than {MAX_KEY} bytes")]
    TooLong,
    #[error("Idempotency-Key is neither a string in quotes nor a bare word")]
    Invalid,
}

/// Bytes of a key.
pub const MAX_KEY: usize = 256;
/// Bytes of a label's value.
pub const MAX_LABEL: usize = 256;
/// Labels of an entry.
pub const MAX_LABELS: usize = 16;
/// Bytes of a principal that is kept as it is; a longer one is kept as its hash.
const MAX_PRINCIPAL: usize = 256;

/// The client's `Idempotency-Key`, if it sent one (draft-ietf-httpapi-idempotency-key-header: a structured field
/// string, `"abc"`). The bare form, `abc`, is taken as the same key, since most clients send that.
pub fn client_key(headers: &HeaderMap) -> Result<Option<String>, KeyFault> {
    let mut fields = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(field) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(KeyFault::Repeated);
    }
    let field = field.as_bytes().trim_ascii();
    let key = match field.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted).ok_or(KeyFault::Invalid)?,
        None => {
            // A comma or a space would be a list, or two fields that somebody joined.
            let is_bare =
                |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';');
            if !field.iter().all(is_bare) {
                return Err(KeyFault::Invalid);
            }
            String::from_utf8_lossy(field).into_owned()
        }
    };
    match key.len() {
        0 => Err(KeyFault::Empty),
        1..=MAX_KEY => Ok(Some(key)),
        _ => Err(KeyFault::TooLong),
    }
}

/// Whose request it is: `principal` of the route, else `iss` and `sub` of the bearer token (unverified), else a hash
/// of `Authorization`, else nobody (empty).
pub fn principal(by: Option<&Expr>, facts: &Facts<'_>) -> Result<String, ExprFault> {
    by.map_or_else(|| Ok(default_principal(facts.headers)), |by| by.to_text(facts).map(bounded))
}

/// See [`principal`].
pub fn default_principal(headers: &HeaderMap) -> String {
    if !headers.contains_key(header::AUTHORIZATION) {
        return String::new();
    }
    if let Some(claims) = bearer_claims(headers)
        && let (Some(issuer), Some(subject)) = (claims["iss"].as_str(), claims["sub"].as_str())
        && !subject.is_empty()
    {
        return bounded(format!("{issuer}#{subject}"));
    }
    let fields = headers.get_all(header::AUTHORIZATION).iter();
    let parts: Vec<&[u8]> = fields.map(header::HeaderValue::as_bytes).collect();
    format!("authorization:{:032x}", digest("authorization", &parts).0)
}

/// All of a request's identity but its fingerprint, which is made when somebody asks for it: most requests meet no
/// other of their key. `client_key` comes from [`client_key()`]. The facts' own principal is not used.
pub fn identify(
    route: &str,
    upstream: &str,
    config: &RouteConfig,
    facts: &Facts<'_>,
    client_key: Option<&str>,
) -> Identified {
    let mut doubt = None;
    let principal = principal(config.principal.as_ref(), facts).unwrap_or_else(|fault| {
        doubt = Some(fault);
        default_principal(facts.headers)
    });
    let facts = Facts { principal: &principal, ..*facts };
    let by_expression = config.dedupe_by.as_ref().and_then(|by| {
        let key = by.to_text(&facts).and_then(as_key);
        key.map_err(|fault| doubt = Some(fault)).ok()
    });
    let (kind, key_text) = match (by_expression, client_key) {
        (Some(key), _) => (KeyKind::Expression, key),
        (None, Some(key)) => (KeyKind::Client, key.to_owned()),
        (None, None) => (KeyKind::RequestId, facts.id.to_owned()),
    };
    let sequence = sequence(route, upstream, config, &facts).unwrap_or_else(|fault| {
        doubt = Some(fault);
        None
    });
    let identity = Identity {
        key: key_digest(route, &principal, kind, &key_text),
        key_text,
        fingerprint: Digest(0),
        principal,
    };
    Identified { identity, kind, sequence, doubt }
}

/// Whether the identity of the route's requests can only be known with their bodies (beside the fingerprint).
pub fn needs_body(config: &RouteConfig) -> bool {
    let expressions = [&config.dedupe_by, &config.principal, &config.sequence_by];
    expressions.into_iter().flatten().any(Expr::reads_body)
}

/// The digest under which the store knows a key.
pub fn key_digest(route: &str, principal: &str, kind: KeyKind, key: &str) -> Digest {
    let kind = match kind {
        KeyKind::Expression => "dedupe_by",
        KeyKind::Client => "idempotency-key",
        KeyKind::RequestId => "request-id",
    };
    digest("key", &[route.as_bytes(), principal.as_bytes(), kind.as_bytes(), key.as_bytes()])
}

/// What must be equal for two requests with one key to be the same.
pub fn fingerprint(method: &str, target: &str, body: &[u8]) -> Digest {
    digest("fingerprint", &[method.as_bytes(), target.as_bytes(), body])
}

/// The request id of a request with a client's key, from the digest of that: the same for every retry (UUIDv8, RFC 9562,
/// 5.8).
pub fn derived_request_id(key: Digest) -> String {
    let id = digest("request-id", &[&key.0.to_be_bytes()]);
    uuid::Builder::from_custom_bytes(id.0.to_be_bytes()).into_uuid().to_string()
}

/// The sequence a request belongs to. `sequence_by` is scoped by route; PUT, PATCH and DELETE without it go in order
/// per path of the upstream, whatever their route. Not scoped by principal: two people who change one thing must stay in order.
fn sequence(
    route: &str,
    upstream: &str,
    config: &RouteConfig,
    facts: &Facts<'_>,
) -> Result<Option<Digest>, ExprFault> {
    if let Some(by) = &config.sequence_by {
        let value = by.to_text(facts)?;
        return Ok(Some(digest("sequence", &[b"by", route.as_bytes(), value.as_bytes()])));
    }
    let in_order = matches!(facts.method, "PUT" | "PATCH" | "DELETE");
    let parts = [b"path", upstream.as_bytes(), facts.path.as_bytes()];
    Ok(in_order.then(|| digest("sequence", &parts)))
}

/// The labels of an entry: those that have a value, cut to [`MAX_LABEL`] bytes.
pub fn labels(config: &RouteConfig, facts: &Facts<'_>) -> Vec<(String, String)> {
    config
        .labels
        .iter()
        .take(MAX_LABELS)
        .filter_map(|(name, by)| {
            let mut value = by.to_text(facts).ok()?;
            value.truncate(value.floor_char_boundary(MAX_LABEL));
            Some((name.clone(), value))
        })
        .collect()
}

/// The digest that caps per customer are counted under. Everybody without a name is one customer.
pub fn customer(route: &str, name: &str) -> Digest {
    digest("customer", &[route.as_bytes(), name.as_bytes()])
}

/// The first 128 bits of SHA-256 over the parts, each with its length before it, so that no two lists look alike.
fn digest(what: &str, parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    // Most are small: they are put together before they are hashed.
    let (mut together, mut filled) = ([0; TOGETHER], 0);
    for part in [what.as_bytes()].iter().chain(parts) {
        for piece in [&(part.len() as u64).to_be_bytes()[..], part] {
            if piece.len() > TOGETHER - filled {
                hash.update(&together[..filled]);
                filled = 0;
            }
            if piece.len() > TOGETHER {
                hash.update(piece);
            } else {
                together[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
            }
        }
    }
    hash.update(&together[..filled]);
    let hash = hash.finalize();
    let (first, _) = hash.split_at(16);
    Digest(first.iter().fold(0, |bits, byte| bits << 8 | u128::from(*byte)))
}

/// Three blocks of SHA-256.
const TOGETHER: usize = 192;

/// A text that is kept as it is, or as a hash when it is long.
fn bounded(text: String) -> String {
    if text.len() <= MAX_PRINCIPAL { text } else { hashed(&text) }
}

fn hashed(text: &str) -> String {
    format!("sha256:{:032x}", digest("long", &[text.as_bytes()]).0)
}

/// What `dedupe_by` gave, as a key that each attempt can carry: a header drops the blanks around its value and takes no
/// control characters, so such a text goes as its hash. Nothing at all names no request.
fn as_key(text: String) -> Result<String, ExprFault> {
    if text.trim().is_empty() {
        return Err(ExprFault("`dedupe_by` gives an empty key".into()));
    }
    let as_it_is = text.trim() == text && !text.chars().any(char::is_control);
    Ok(if as_it_is { bounded(text) } else { hashed(&text) })
}

/// What stands between the quotes of a structured field string (RFC 9651, 4.2.5); nothing may follow it.
fn unquote(quoted: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return bytes.next().is_none().then_some(text),
            b'\\' => match bytes.next()? {
                byte @ (b'"' | b'\\') => text.push(char::from(*byte)),
                _ => return None,
            },
            byte @ 0x20..=0x7e => text.push(char::from(*byte)),
            _ => return None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use serde_json::{Value, json};

    use super::*;
    use crate::time::UnixMillis;

    pub(in crate::stand_in) fn facts<'a>(
        headers: &'a HeaderMap,
        method: &'a str,
        body: &'a Value,
    ) -> Facts<'a> {
        Facts {
            method,
            path: "/orders/7",
            query: "",
            headers,
            params: &[],
            id: "id-1",
            principal: "",
            client_ip: Ipv4Addr::LOCALHOST.into(),
            body: body.into(),
            reason: "connect_failed",
            now: UnixMillis(1_700_000_000_000),
            response: None,
        }
    }

    pub(in crate::stand_in) fn route(more: &str) -> RouteConfig {
        toml::from_str(&format!("match = \"POST /orders/{{id}}\"\n{more}")).unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn key_of(value: &str) -> Result<Option<String>, KeyFault> {
        client_key(&headers(&[("idempotency-key", value)]))
    }

    /// Stores have kept digests: they never change.
    #[test]
    fn a_digest_is_of_each_part_with_its_length_before_it() {
        let text = "x".repeat(3 * TOGETHER);
        for length in 0..=text.len() {
            let parts = [&text.as_bytes()[..length], b"", b"abc", &text.as_bytes()[length..]];
            let mut hash = Sha256::new();
            for part in [&b"what"[..]].iter().chain(&parts) {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            let first: [u8; 16] = hash.finalize()[..16].try_into().unwrap();
            assert_eq!(digest("what", &parts).0, u128::from_be_bytes(first), "{length}");
        }
    }

    #[test]
    fn quoted_and_bare_keys() {
        for (field, key) in [
            ("\"abc\"", "abc"),
            ("abc", "abc"),
            ("  abc  ", "abc"),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
            (r#""a \"b\" \\ c""#, r#"a "b" \ c"#),
            ("\"a, b; c\"", "a, b; c"),
            ("a+b/c==", "a+b/c=="),
        ] {
            assert_eq!(key_of(field), Ok(Some(key.to_owned())), "{field}");
        }
        assert_eq!(client_key(&HeaderMap::new()), Ok(None));
        assert_eq!(key_of(&"k".repeat(256)), Ok(Some("k".repeat(256))));
    }

    #[test]
    fn bad_keys_are_the_clients_fault() {
        for (field, fault) in [
            ("", KeyFault::Empty),
            ("  ", KeyFault::Empty),
            ("\"\"", KeyFault::Empty),
            ("\"abc", KeyFault::Invalid),
            ("abc\"", KeyFault::Invalid),
            ("\"abc\"x", KeyFault::Invalid),
            ("\"abc\";a=1", KeyFault::Invalid),
            ("\"a\", \"b\"", KeyFault::Invalid),
            ("a, b", KeyFault::Invalid),
            ("a,b", KeyFault::Invalid),
            ("a b", KeyFault::Invalid),
            (r#""a\b""#, KeyFault::Invalid),
            (r#""a\"#, KeyFault::Invalid),
        ] {
            assert_eq!(key_of(field), Err(fault), "{field}");
        }
        assert_eq!(key_of(&"k".repeat(257)), Err(KeyFault::TooLong));
        let twice = headers(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        assert_eq!(client_key(&twice), Err(KeyFault::Repeated));
        let mut latin = HeaderMap::new();
        latin.insert("idempotency-key", header::HeaderValue::from_bytes(b"k\xe9y").unwrap());
        assert_eq!(client_key(&latin), Err(KeyFault::Invalid));
    }

    #[test]
    fn the_principal_is_the_tokens_subject_or_a_hash_of_the_credentials() {
        let jwt = "Bearer eyJhbGciOiJub25lIn0.eyJpc3MiOiJzaG9wIiwic3ViIjoidTEifQ.x";
        assert_eq!(default_principal(&headers(&[("authorization", jwt)])), "shop#u1");
        let basic = default_principal(&headers(&[("authorization", "Basic dTpw")]));
        let other = default_principal(&headers(&[("authorization", "Basic dTpx")]));
        assert!(basic.starts_with("authorization:") && !basic.contains("dTpw"));
        assert_ne!(basic, other);
        assert_eq!(default_principal(&HeaderMap::new()), "");
        let by = Expr::compile("request.headers[\"x-user\"]").unwrap();
        let user = headers(&[("x-user", "ann"), ("authorization", jwt)]);
        let of = |headers: &HeaderMap| principal(Some(&by), &facts(headers, "POST", &Value::Null));
        assert_eq!(of(&user).as_deref(), Ok("ann"));
        assert!(of(&HeaderMap::new()).is_err());
        let long = headers(&[("x-user", &"u".repeat(300))]);
        assert!(of(&long).is_ok_and(|hash| hash.starts_with("sha256:")));
    }

    #[test]
    fn the_first_of_dedupe_by_client_key_and_request_id_is_the_key() {
        let body = json!({"cart": "c-9"});
        let none = HeaderMap::new();
        let facts = facts(&none, "POST", &body);
        let by_cart = route("dedupe_by = \"body.cart\"");
        let plain = route("");
        let key = |config: &RouteConfig, client| {
            let found = identify("r", "shop", config, &facts, client);
            assert!(found.doubt.is_none());
            (found.kind, found.identity.key_text)
        };
        assert_eq!(key(&by_cart, Some("k")), (KeyKind::Expression, "c-9".into()));
        assert_eq!(key(&plain, Some("k")), (KeyKind::Client, "k".into()));
        assert_eq!(key(&plain, None), (KeyKind::RequestId, "id-1".into()));
    }

    #[test]
    fn each_key_of_dedupe_by_can_be_carried_by_a_header() {
        let none = HeaderMap::new();
        let by_cart = route("dedupe_by = \"body.cart\"");
        let key = |cart: &str| {
            let body = json!({ "cart": cart });
            let found = identify("r", "shop", &by_cart, &facts(&none, "POST", &body), Some("k"));
            (found.kind, found.identity.key_text, found.doubt.is_some())
        };
        for cart in ["c-9", "two words", "é"] {
            assert_eq!(key(cart), (KeyKind::Expression, cart.into(), false));
        }
        let long = "c".repeat(300);
        let carts = ["a\nb", "a\u{7f}", " c-9", "c-9\t", "c-9\u{a0}", &long];
        let hashes = carts.map(|cart| key(cart).1);
        assert!(hashes.iter().all(|hash| hash.starts_with("sha256:")), "{hashes:?}");
        assert!(hashes.iter().enumerate().all(|(at, hash)| !hashes[..at].contains(hash)));
        for cart in ["", "  ", "\n"] {
            assert_eq!(key(cart), (KeyKind::Client, "k".into(), true), "{cart:?}");
        }
    }

    #[test]
    fn what_gives_no_value_is_a_doubt_and_not_another_key_unseen() {
        let none = HeaderMap::new();
        let facts = facts(&none, "POST", &Value::Null);
        for rule in
            ["dedupe_by = \"body.cart\"", "principal = \"jwt.sub\"", "sequence_by = \"body.id\""]
        {
            let found = identify("r", "shop", &route(rule), &facts, Some("k"));
            assert!(found.doubt.is_some(), "{rule}");
            assert_eq!(found.kind, KeyKind::Client);
        }
    }

    #[test]
    fn some_identities_need_the_body() {
        assert!(!needs_body(&route("dedupe_by = \"request.headers.cart\"")));
        assert!(needs_body(&route("dedupe_by = \"body.cart\"")));
        assert!(needs_body(&route("sequence_by = \"body.cart\"")));
        assert!(!needs_body(&route("")));
    }

    #[test]
    fn keys_are_scoped_and_no_two_scopes_look_alike() {
        let key = |route, principal, kind, key| key_digest(route, principal, kind, key);
        let all = [
            key("a", "bc", KeyKind::Client, "d"),
            key("ab", "c", KeyKind::Client, "d"),
            key("a", "b", KeyKind::Client, "cd"),
            key("a", "bc", KeyKind::RequestId, "d"),
            key("a", "bc", KeyKind::Expression, "d"),
            key("a", "bc", KeyKind::Client, "e"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_eq!(all[0], key("a", "bc", KeyKind::Client, "d"));
    }

    #[test]
    fn the_fingerprint_is_of_method_target_and_body() {
        let one = fingerprint("POST", "/a", b"b");
        assert_eq!(one, fingerprint("POST", "/a", b"b"));
        for other in
            [("PUT", "/a", "b"), ("POST", "/ab", ""), ("POST", "/a", "c"), ("POST", "/a?", "b")]
        {
            assert_ne!(one, fingerprint(other.0, other.1, other.2.as_bytes()));
        }
    }

    #[test]
    fn a_retry_with_the_same_key_has_the_same_request_id() {
        let id = |key| derived_request_id(key_digest("r", "u", KeyKind::Client, key));
        assert_eq!(id("k"), id("k"));
        assert_ne!(id("k"), id("l"));
        let parsed: uuid::Uuid = id("k").parse().unwrap();
        assert_eq!(parsed.get_version_num(), 8);
        assert_eq!(parsed.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn what_changes_one_thing_is_one_sequence() {
        let (none, body) = (HeaderMap::new(), json!({"order": 7}));
        let sequence = |route_name, config: &RouteConfig, method, principal| {
            let facts = Facts { principal, ..facts(&none, method, &body) };
            identify(route_name, "shop", config, &facts, None).sequence
        };
        let plain = route("");
        assert_eq!(sequence("r", &plain, "POST", ""), None);
        let put = sequence("r", &plain, "PUT", "ann");
        assert!(put.is_some());
        assert_eq!(put, sequence("other", &plain, "DELETE", "bob"));
        let by = route("sequence_by = \"body.order\"");
        let posted = sequence("r", &by, "POST", "ann");
        assert!(posted.is_some());
        assert_eq!(posted, sequence("r", &by, "PUT", "bob"));
        assert_ne!(posted, sequence("other", &by, "POST", "ann"));
    }

    #[test]
    fn labels_without_a_value_are_left_out_and_long_ones_cut() {
        let config =
            route("[labels]\norder = \"body.order\"\nmail = \"body.mail\"\nnote = \"body.note\"\n");
        let body = json!({"order": 7, "note": "é".repeat(200)});
        let none = HeaderMap::new();
        let labels = labels(&config, &facts(&none, "POST", &body));
        assert_eq!(labels.len(), 2);
        assert_eq!(labels[0], ("note".into(), "é".repeat(128)));
        assert_eq!(labels[1], ("order".into(), "7".into()));
        let many: String = (0..20).map(|n| format!("l{n:02} = \"body.order\"\n")).collect();
        let many =
            super::labels(&route(&format!("[labels]\n{many}")), &facts(&none, "POST", &body));
        assert_eq!(many.len(), MAX_LABELS);
    }
}
