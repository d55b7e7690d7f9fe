//! `warren snapshot top` without a snapshot: what each host's pager brought its paged sandboxes, and how long they waited for it.

use crate::{screen, shape};
use tonic::Code;
use warren_client::{Client, Failure, Outcome};
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{Host, ListHostsRequest, Pager, PagerTier},
};

pub(crate) async fn top(client: &Client, host: &str, json: bool) -> Outcome {
    let all = client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
    let found: Vec<Host> = all.into_iter().filter(|one| host.is_empty() || one.id == host).collect();
    if found.is_empty() && !host.is_empty() {
        let message = format!("there is no host {host:?}; `warren hosts` lists them");
        let error = WireError::new(Code::NotFound, reason::NO_SUCH_HOST, Fault::Caller, message);
        return Err(Failure::Wire(Box::new(error)));
    }
    if json {
        let hosts = found.iter().map(
            |one| serde_json::json!({ "host_id": one.id, "pager": one.pager.as_ref().map(shape::pager) }),
        );
        screen::print_json(&hosts.collect());
        return Ok(());
    }
    screen::print(&told(&found));
    Ok(())
}

fn told(hosts: &[Host]) -> String {
    let with: Vec<_> = hosts.iter().filter_map(|one| Some((one.id.as_str(), one.pager.as_ref()?))).collect();
    if with.is_empty() {
        return "no host pages: `warren up --snapshot-origin` shares snapshots, and starts from them are paged\n".to_owned();
    }
    let header = [
        "host",
        "pager",
        "begun",
        "serving",
        "served",
        "faults",
        "waited",
        "mean wait",
        "longest",
        "loading set",
        "other pages",
        "zero",
        "ahead",
        "filled",
    ];
    let rows = with.iter().map(|(host, pager)| served(host, pager)).collect();
    let reads = with.iter().flat_map(|(host, pager)| tiers(host, pager)).collect();
    let right = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    let columns = ["host", "chunks from", "hits", "misses", "failures", "hit ratio", "bytes", "p50", "p99"];
    format!(
        "{}\n\n{}\n",
        screen::table(&header, &right, rows),
        screen::table(&columns, &[2, 3, 4, 5, 6, 7, 8], reads),
    )
}

fn served(host: &str, pager: &Pager) -> Vec<String> {
    let or_none = |asked: u64, text: String| if asked > 0 { text } else { "-".to_owned() };
    vec![
        host.to_owned(),
        if pager.pid > 0 { pager.pid.to_string() } else { "none".to_owned() },
        pager.begun.to_string(),
        pager.serving.to_string(),
        pager.served.to_string(),
        pager.faults.to_string(),
        pager.waits.to_string(),
        or_none(pager.waits, screen::micros(pager.waited_us / pager.waits.max(1))),
        or_none(pager.waits, screen::micros(pager.longest_wait_us)),
        pager.loading_set_pages.to_string(),
        pager.chunk_pages.to_string(),
        pager.zero_pages.to_string(),
        pager.ahead_pages.to_string(),
        pager.filled_chunks.to_string(),
    ]
}

fn tiers(host: &str, pager: &Pager) -> impl Iterator<Item = Vec<String>> {
    let all = [
        ("its memory", pager.memory),
        ("its disk", pager.disk),
        ("the agent", pager.agent),
        ("neighbours", pager.neighbours),
        ("the origin", pager.origin),
    ];
    all.map(|(place, tier)| {
        let tier = tier.unwrap_or_default();
        vec![
            host.to_owned(),
            place.to_owned(),
            tier.hits.to_string(),
            tier.misses.to_string(),
            tier.failures.to_string(),
            ratio(&tier),
            screen::bytes(tier.bytes),
            if tier.hits > 0 { screen::micros(tier.p50_us) } else { "-".to_owned() },
            if tier.hits > 0 { screen::micros(tier.p99_us) } else { "-".to_owned() },
        ]
    })
    .into_iter()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(tier: &PagerTier) -> String {
    match tier.hits.saturating_add(tier.misses).saturating_add(tier.failures) {
        0 => "-".to_owned(),
        asked => format!("{:.1} %", tier.hits as f64 * 100.0 / asked as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: &str, pager: Option<&Pager>) -> Host {
        Host { id: id.into(), pager: pager.copied(), ..Host::default() }
    }

    fn rows(text: &str) -> Vec<String> {
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    }

    #[test]
    fn what_was_brought_host_by_host() {
        let memory =
            PagerTier { hits: 3, misses: 1, bytes: 4096, p50_us: 250, p99_us: 1500, ..PagerTier::default() };
        let pager = Pager {
            pid: 77,
            begun: 2,
            serving: 1,
            served: 5,
            faults: 40,
            waits: 4,
            waited_us: 2000,
            longest_wait_us: 900,
            loading_set_pages: 100,
            chunk_pages: 20,
            zero_pages: 7,
            ahead_pages: 90,
            filled_chunks: 6,
            memory: Some(memory),
            ..Pager::default()
        };
        let text = told(&[host("w1", Some(&pager)), host("w2", None), host("w3", Some(&Pager::default()))]);
        let rows = rows(&text);
        let wait = |us| screen::micros(us);
        assert_eq!(rows[1], format!("w1 77 2 1 5 40 4 {} {} 100 20 7 90 6", wait(500), wait(900)));
        assert_eq!(rows[2], "w3 none 0 0 0 0 0 - - 0 0 0 0 0");
        assert_eq!(rows[5], format!("w1 its memory 3 1 0 75.0 % 4.0 KiB {} {}", wait(250), wait(1500)));
        assert_eq!(rows[6], "w1 its disk 0 0 0 - 0 B - -");
        assert_eq!(rows.len(), 5 + 10, "{text}");
        assert!(told(&[host("w2", None)]).starts_with("no host pages"));
    }
}
