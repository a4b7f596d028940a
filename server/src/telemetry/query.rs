//! `/debug/query?name=&type=`: resolves a question and tells what happened, step by step, as JSON.
//!
//! Known answers don't end the question: the operator wants to see what the upstreams say now. What comes
//! of it is stored like any answer. Bound: `timeline::MAX_AT_ONCE` for each worker.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Deserialize;
use swiftlet_parser::key::{KeyBuf, Variant};
use swiftlet_parser::message::write_query;
use swiftlet_parser::name::Name;
use swiftlet_parser::query;
use swiftlet_parser::rr::{Class, Type};
use tokio::sync::oneshot;

use super::http::Observed;
use crate::policy::{self, Action, Request};
use crate::resolver::timeline::{Asked, Ending, Explained, Step};

/// How long a question may take in all; longer than any time-out for upstreams should be.
const PATIENCE: Duration = Duration::from_secs(14);

/// The longest query: header, question, OPT.
const MAX_QUERY_LEN: usize = 12 + 255 + 4 + 11;

/// What is asked.
#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    name: String,
    #[serde(rename = "type", default = "address")]
    qtype: String,
    /// With DNSSEC records (DO).
    #[serde(default)]
    dnssec: bool,
}

fn address() -> String {
    "A".into()
}

pub(super) async fn show(
    State(observed): State<Arc<Observed>>,
    Query(parameters): Query<Parameters>,
) -> impl IntoResponse {
    let explained = explain(&observed, &parameters).await?;
    match serde_json::to_string_pretty(&explained) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text + "\n")),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}

type Refusal = (StatusCode, String);

async fn explain(observed: &Observed, parameters: &Parameters) -> Result<Explained, Refusal> {
    let bad = |what: String| (StatusCode::BAD_REQUEST, what + "\n");
    let name = Name::from_text(&parameters.name)
        .map_err(|error| bad(format!("name={}: {error}", parameters.name)))?;
    let qtype = Type::from_text(&parameters.qtype)
        .ok_or_else(|| bad(format!("type={}: no such type", parameters.qtype)))?;
    let mut keys = KeyBuf::default();
    let variant = Variant::new(parameters.dnssec, false, 0);
    let key = keys.build(&observed.service.seed, name.as_wire(), qtype, Class::IN, variant);
    let mut packet = [0; MAX_QUERY_LEN];
    let len = write_query(&mut packet, 0, &key, observed.service.edns.udp_size)
        .ok_or_else(|| bad("the question fits into no packet".into()))?;
    if let Some(answered) = by_policy(observed, &packet[..len]) {
        return Ok(answered);
    }
    let (reply, explained) = oneshot::channel();
    let asked = Asked { hash: key.hash, key: key.bytes.into(), reply };
    if !observed.post.send_asked(observed.post.owner(key.hash), asked) {
        let text = "too many questions are being explained\n";
        return Err((StatusCode::SERVICE_UNAVAILABLE, text.into()));
    }
    match tokio::time::timeout(PATIENCE, explained).await {
        Ok(Ok(explained)) => Ok(explained),
        _ => Err((StatusCode::GATEWAY_TIMEOUT, "the question did not end\n".into())),
    }
}

/// What a policy answers, which then never reaches the cache. Asked in the name of a client on loopback.
fn by_policy(observed: &Observed, packet: &[u8]) -> Option<Explained> {
    let query = query::parse(packet).ok()?;
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let request = Request { query: &query, qname: query.qname(packet), client };
    let Action::Answer(answer) = policy::query(&observed.service.policies, &request) else {
        return None;
    };
    let error = answer.explanation().map(|(error, text)| format!("{error}: {text}"));
    let what = "a policy answers: neither cache nor upstreams are asked".into();
    Some(Explained {
        steps: vec![Step { at_us: 0, what }],
        steps_left_out: 0,
        outcome: Ending::code(answer.rcode(), error),
    })
}
