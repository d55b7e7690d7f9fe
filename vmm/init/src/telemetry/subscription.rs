//! A subscription's request. Pure.

use serde::Deserialize;

/// What kinds of records there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Category {
    /// Of the sandbox's life.
    Platform,
    /// The function's log.
    Function,
    /// The extensions' logs.
    Extension,
}

/// How records are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Buffering {
    /// Most records at once.
    pub(crate) max_items: u32,
    /// Most bytes at once.
    pub(crate) max_bytes: u32,
    /// What a record waits at most.
    pub(crate) timeout_ms: u32,
}

impl Default for Buffering {
    fn default() -> Self {
        Self { max_items: 10_000, max_bytes: 256 << 10, timeout_ms: 1000 }
    }
}

/// A subscription that can be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Of which records.
    pub(crate) categories: Vec<Category>,
    /// How they are put together.
    pub(crate) buffering: Buffering,
    /// The server's port on the loopback.
    pub(crate) port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    schema_version: String,
    types: Vec<Category>,
    #[serde(default)]
    buffering: Buffering,
    destination: Destination,
}

#[derive(Deserialize)]
struct Destination {
    protocol: String,
    #[serde(rename = "URI", alias = "uri")]
    uri: String,
}

const SCHEMAS: [&str; 3] = ["2022-07-01", "2022-12-13", "2025-01-29"];
/// Names of the sandbox itself.
const HOSTS: [&str; 4] = ["sandbox.localdomain", "sandbox", "localhost", "127.0.0.1"];

impl Subscription {
    /// Reads a request, or says what is wrong with it.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let request: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if !SCHEMAS.contains(&request.schema_version.as_str()) {
            return Err(format!("schemaVersion {:?} is not known", request.schema_version));
        }
        if request.types.is_empty() {
            return Err("types is empty".to_owned());
        }
        let Buffering { max_items, max_bytes, timeout_ms } = request.buffering;
        for (name, value, least, most) in [
            ("maxItems", max_items, 1000, 10_000),
            ("maxBytes", max_bytes, 256 << 10, 1 << 20),
            ("timeoutMs", timeout_ms, 25, 30_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("buffering.{name} is {value}, allowed are {least} to {most}"));
            }
        }
        if !request.destination.protocol.eq_ignore_ascii_case("http") {
            return Err(format!("destination.protocol {:?} is not HTTP", request.destination.protocol));
        }
        let port = port(&request.destination.uri)?;
        Ok(Self { categories: request.types, buffering: request.buffering, port })
    }
}

/// The port of `http://HOST[:PORT][/...]`.
fn port(uri: &str) -> Result<u16, String> {
    let uri: hyper::Uri = uri.parse().map_err(|_| format!("destination.URI {uri:?} is no URI"))?;
    let host = uri.host().unwrap_or_default();
    if uri.scheme_str() != Some("http") || !HOSTS.contains(&host) {
        return Err(format!("destination.URI {uri} is not http://sandbox.localdomain:PORT"));
    }
    match uri.port_u16().unwrap_or(80) {
        0 => Err("destination.URI has port 0".to_owned()),
        port => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: (&str, &str), expect: Result<u16, &str>) {
        let good = r#"{"schemaVersion":"2022-12-13","types":["platform","function","extension"],
            "buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":100},
            "destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8080"}}"#;
        assert!(good.contains(change.0), "{change:?}");
        let got = Subscription::read(good.replace(change.0, change.1).as_bytes());
        match (got, expect) {
            (Ok(subscription), Ok(port)) => assert_eq!(subscription.port, port),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why:?} lacks {part:?}"),
            (got, expect) => panic!("{change:?}: {got:?}, {expect:?}"),
        }
    }

    #[test]
    fn table() {
        check(("", ""), Ok(8080));
        check(("sandbox.localdomain:8080", "sandbox:9/x?y"), Ok(9));
        check((r#""timeoutMs":100"#, r#""timeoutMs":25"#), Ok(8080));
        check((r#""buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":100},"#, ""), Ok(8080));
        check(("sandbox.localdomain", "example.com"), Err("destination.URI"));
        check(("http://", "https://"), Err("destination.URI"));
        check((":8080", ":0"), Err("port 0"));
        check(("HTTP", "TCP"), Err("is not HTTP"));
        check(("1000", "10"), Err("buffering.maxItems is 10, allowed are 1000 to 10000"));
        check(("262144", "1048577"), Err("maxBytes"));
        check((r#""platform","function","extension""#, ""), Err("types is empty"));
        check((r#""platform""#, r#""other""#), Err("other"));
        check(("2022-12-13", "2019-01-01"), Err("schemaVersion"));
        check(("{", ""), Err(""));
    }
}
