//! Whether the host names of the configuration can be looked up, all at once and for no
//! longer than a moment: a name that cannot be is awaited by the daemon, not refused.

use std::time::{Duration, Instant};

use tokio_postgres::config::Host;

use crate::config::{Config, Stage};
use crate::kernel::Finding;
use crate::plugin::output::{Address, Destination};
use crate::resolver::{Answer, Lookup, Resolver};

/// How long all look-ups together may take.
const LIMIT: Duration = Duration::from_secs(3);

/// A finding for each name.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    look_up(names(config), &Resolver::default(), LIMIT)
}

fn look_up(names: Vec<String>, resolver: &Resolver, limit: Duration) -> Vec<Finding> {
    let deadline = Instant::now() + limit;
    // The port has no part in it.
    let started: Vec<_> = names.into_iter().map(|name| (resolver.start(&name, 0), name)).collect();
    let judged = started.into_iter().map(|(lookup, name)| {
        judge(&name, lookup.and_then(|lookup: Lookup| lookup.wait(deadline)))
    });
    judged.collect()
}

fn judge(name: &str, answer: Answer) -> Finding {
    const NAME: &str = "name";
    match answer {
        Ok(found) => {
            let mut texts: Vec<_> = found.iter().map(|one| one.ip().to_string()).collect();
            texts.dedup();
            Finding::ok(NAME, format!("{name} has the address {}", texts.join(", ")))
        }
        Err(error) => Finding::warning(
            NAME,
            format!("{name} cannot be looked up: {error}"),
            "records wait until it can be: see to the name servers, or give the address in numbers",
        ),
    }
}

/// The host names that sinks connect to, each once, without those that are addresses.
fn names(config: &Config) -> Vec<String> {
    let mut names = Vec::new();
    for stage in config.stacks.iter().flat_map(|stack| &stack.stages) {
        for name in hosts(stage) {
            let numeric = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
            if !numeric && !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn hosts(stage: &Stage) -> Vec<String> {
    let of = |destination: &Destination| match destination {
        Destination::Socket(Address::Tcp(host, _) | Address::Udp(host, _)) => vec![host.clone()],
        Destination::Socket(_) | Destination::File { .. } => Vec::new(),
    };
    match stage {
        Stage::Syslog(settings) => of(&settings.output.destination),
        Stage::Json(settings) => of(&settings.output.destination),
        Stage::Ipfix(settings) => vec![settings.host.clone()],
        Stage::Clickhouse(settings) => vec![settings.url.host.clone()],
        Stage::Nats(settings) => {
            settings.far.servers.iter().map(|server| server.host().to_owned()).collect()
        }
        Stage::Kafka(settings) => settings.far.brokers.split(',').map(broker).collect(),
        // Where an address is given beside the name, the name is not looked up.
        Stage::Pgsql(settings) if settings.target.server.get_hostaddrs().is_empty() => {
            let name = |host: &Host| match host {
                Host::Tcp(name) => Some(name.clone()),
                Host::Unix(_) => None,
            };
            settings.target.server.get_hosts().iter().filter_map(name).collect()
        }
        _ => Vec::new(),
    }
}

/// The host of `PROTOCOL://HOST:PORT`, of which librdkafka wants the host alone.
fn broker(text: &str) -> String {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = match text.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => text,
    };
    host.trim_matches(['[', ']']).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;
    use crate::kernel::State;

    #[test]
    fn each_name_is_looked_up_and_no_address() {
        let text = "[global]\n\
                    stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG\n\
                    stack=ct1:NFCT,json1:JSON\nstack=ct1:NFCT,k1:KAFKA\nstack=ct1:NFCT,n1:NATS\n\
                    stack=ct1:NFCT,i1:IPFIX\n\
                    [sys1]\nserver=\"udp://loghost.example.org:514\"\n\
                    [json1]\nmode=\"tcp\"\nhost=\"192.0.2.1\"\n\
                    [k1]\nbrokers=\"a.example.org:9092,[2001:db8::1]:9092\"\ntopic=\"t\"\n\
                    [n1]\nserver=\"nats://loghost.example.org:4222\"\n\
                    [i1]\nhost=\"collector\"\n";
        let outcome = config::parse(Path::new("f.conf"), text);
        let config = outcome.config.unwrap_or_else(|| panic!("{:?}", outcome.diagnostics));
        assert_eq!(names(&config), ["loghost.example.org", "a.example.org", "collector"]);
    }

    #[test]
    fn a_silent_name_server_is_not_waited_for() {
        let resolver = Resolver::new(|host, _| {
            if host == "silent" {
                std::thread::sleep(Duration::from_secs(60));
            }
            if host == "unknown" { Ok(Vec::new()) } else { Ok(vec![([192, 0, 2, 1], 0).into()]) }
        });
        let names = ["known", "unknown", "silent"].map(str::to_owned).to_vec();
        let start = Instant::now();
        let found = look_up(names, &resolver, Duration::from_secs(2));
        assert!(start.elapsed() < Duration::from_secs(30));
        let states: Vec<_> = found.iter().map(|finding| finding.state).collect();
        assert_eq!(states, [State::Ok, State::Warning, State::Warning]);
        assert_eq!(found[0].what, "known has the address 192.0.2.1");
        assert!(found[2].what.contains("no answer within 2 s"), "{}", found[2].what);
    }
}
