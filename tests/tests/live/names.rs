//! Names that do not resolve, name servers that are silent, and peers that move: the daemon
//! starts, nothing waits for a look-up, and records arrive in the end.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program};
use tests::lab::SingleNs;
use tests::poll;

use super::readers::{health, stop, total, wait_lines};
use super::syslog::UNTRACKED;

const HOST: &str = "loghost.example.org";

fn config(stacks: &str, keys: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n\
         metrics=\"127.0.0.1:9470\"\nspool_dir=\"@DIR@/spool\"\n\
         {stacks}stack=ct1:NFCT,jsonf:JSON\n\
         [ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n\
         [jsonf]\nfile=\"@DIR@/flows.json\"\nschema=\"full\"\nsync=1\n{keys}\n"
    )
}

fn syslog() -> String {
    config(
        "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG\n",
        &format!("[sys1]\nserver=\"udp://{HOST}:5514\""),
    )
}

fn json() -> String {
    let keys = format!("[json2]\nmode=\"udp\"\nhost=\"{HOST}\"\nport=5514");
    config("stack=ct1:NFCT,json2:JSON\n", &keys)
}

/// A daemon whose names are those of `hosts`, and whose name server never answers.
struct Named<'n> {
    daemon: Daemon,
    single: &'n SingleNs,
    _silent: UdpSocket,
}

impl<'n> Named<'n> {
    /// `patience`: what resolv.conf says of how long to wait.
    fn start(single: &'n SingleNs, config: &str, hosts: &str, patience: &str) -> Result<Self> {
        single.namespace().nft(UNTRACKED)?;
        let launch = Launch::new(Program::Flowlog, single.namespace(), config)?;
        let silent = single.namespace().enter(|| Ok(UdpSocket::bind("127.0.0.53:53")?))?;
        fs::write(launch.dir().join("hosts"), hosts)?;
        let servers = format!("nameserver 127.0.0.53\noptions {patience}\n");
        fs::write(launch.dir().join("resolv.conf"), servers)?;
        let dir = launch.dir().display();
        let script = format!(
            "mount --bind {dir}/hosts /etc/hosts && \
             mount --bind {dir}/resolv.conf /etc/resolv.conf && exec \"$@\""
        );
        let launch = launch.wrapped_by(&["unshare", "-m", "sh", "-c", &script, "sh"]);
        Ok(Self { daemon: launch.start()?, single, _silent: silent })
    }

    /// Written in place: the file is mounted.
    fn hosts(&self, hosts: &str) -> Result<()> {
        Ok(fs::write(self.daemon.path("hosts"), hosts)?)
    }

    fn hup(&self) -> Result<()> {
        self.daemon.process.signal(Signal::SIGHUP)
    }

    fn listen(&self, address: &str) -> Result<UdpSocket> {
        let socket = self.single.namespace().enter(|| Ok(UdpSocket::bind(address)?))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// Receives until that number of messages is there.
fn receive(socket: &UdpSocket, messages: usize) -> Result<()> {
    let mut count = 0;
    poll::until(&format!("{messages} messages"), || {
        let mut buffer = [0; 4096];
        while socket.recv(&mut buffer).is_ok() {
            count += 1;
        }
        Ok((count >= messages).then_some(()))
    })
}

fn is(address: &str) -> String {
    format!("{address} {HOST}\n")
}

/// Before the network is up: it starts, logs, says what it waits for, and finds it later.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_name_that_does_not_resolve_at_start_is_awaited() -> Result<()> {
    let single = SingleNs::new()?;
    let named = Named::start(&single, &syslog(), "", "timeout:1 attempts:1")?;
    udp_burst(&single, 4000, 0, 100)?;
    wait_lines(&named.daemon, "flows.json", 100)?;
    named.daemon.wait_log("its name cannot be looked up")?;
    let said = health(single.namespace())?;
    ensure!(said.contains(HOST) && said.contains("see to the name servers"), "{said}");
    let listener = named.listen("127.0.0.1:5514")?;
    named.hosts(&is("127.0.0.1"))?;
    receive(&listener, 100)?;
    let finished = stop(named.daemon)?;
    ensure!(total(&finished, "syslog.messages")? == 100, "{}", finished.log);
    ensure!(total(&finished, "syslog.lost_messages")? == 0, "{}", finished.log);
    Ok(())
}

/// The daily HUP of logrotate, while the name servers are silent.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_old_address_stays_in_use_while_name_servers_are_silent() -> Result<()> {
    let single = SingleNs::new()?;
    let named = Named::start(&single, &syslog(), &is("127.0.0.1"), "timeout:5 attempts:3")?;
    let listener = named.listen("127.0.0.1:5514")?;
    udp_burst(&single, 4000, 0, 20)?;
    receive(&listener, 20)?;
    named.hosts("")?;
    let start = Instant::now();
    named.hup()?;
    health(single.namespace())?;
    udp_burst(&single, 4000, 20, 20)?;
    receive(&listener, 20)?;
    named.hup()?;
    health(single.namespace())?;
    ensure!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    named.daemon.wait_log("no name server has answered for 10 s; its old address stays in use")?;
    let finished = stop(named.daemon)?;
    ensure!(total(&finished, "syslog.messages")? == 40, "{}", finished.log);
    Ok(())
}

/// By HUP at once, by itself within a minute; SYSLOG and JSON.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_datagram_peer_that_moves_is_found() -> Result<()> {
    for config in [syslog(), json()] {
        let single = SingleNs::new()?;
        let named = Named::start(&single, &config, &is("127.0.0.1"), "timeout:1 attempts:1")?;
        let [first, second, third] = ["127.0.0.1:5514", "127.0.0.2:5514", "127.0.0.3:5514"]
            .map(|address| named.listen(address));
        udp_burst(&single, 4000, 0, 5)?;
        receive(&first?, 5)?;
        named.hosts(&is("127.0.0.2"))?;
        named.hup()?;
        named.daemon.wait_log("has the address 127.0.0.2 now")?;
        udp_burst(&single, 4000, 5, 5)?;
        receive(&second?, 5)?;
        named.hosts(&is("127.0.0.3"))?;
        // A minute, and what a busy machine takes.
        poll::within(Duration::from_secs(65), "the look-up by itself", || {
            Ok(named.daemon.log().contains("has the address 127.0.0.3 now").then_some(()))
        })?;
        udp_burst(&single, 4000, 10, 5)?;
        receive(&third?, 5)?;
        stop(named.daemon)?;
    }
    Ok(())
}

/// Sinks with threads of their own: none of them keeps the daemon from ending.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_look_up_that_hangs_does_not_keep_the_daemon_from_ending() -> Result<()> {
    let sinks = [
        ("nats1:NATS", format!("[nats1]\nserver=\"nats://{HOST}:4222\"\nsubject=\"flows\"")),
        ("kafka1:KAFKA", format!("[kafka1]\nbrokers=\"{HOST}:9092\"\ntopic=\"flows\"")),
        ("ipfix1:IPFIX", format!("[ipfix1]\nhost=\"{HOST}\"")),
        ("pg1:PGSQL", format!("[pg1]\nhost=\"{HOST}\"\nuser=\"u\"\ndb=\"d\"")),
        ("ch1:CLICKHOUSE", format!("[ch1]\nurl=\"http://{HOST}:8123\"")),
        ("json2:JSON", format!("[json2]\nmode=\"tcp\"\nhost=\"{HOST}\"\nschema=\"full\"")),
    ];
    let stacks: String = sinks.iter().map(|(sink, _)| format!("stack=ct1:NFCT,{sink}\n")).collect();
    let keys: Vec<_> = sinks.iter().map(|(_, keys)| keys.as_str()).collect();
    let single = SingleNs::new()?;
    let text = config(&stacks, &keys.join("\n"));
    let named = Named::start(&single, &text, "", "timeout:30 attempts:3")?;
    udp_burst(&single, 4000, 0, 100)?;
    wait_lines(&named.daemon, "flows.json", 100)?;
    health(single.namespace())?;
    let start = Instant::now();
    let finished = named.daemon.stop()?;
    ensure!(start.elapsed() < Duration::from_secs(8), "TERM took {:?}", start.elapsed());
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    ensure!(total(&finished, "json.lost_records")? == 100, "{}", finished.log);
    for sink in ["nats", "kafka", "ipfix", "pgsql", "clickhouse"] {
        let spooled = total(&finished, &format!("{sink}.spooled_records"))?;
        ensure!(spooled == 100, "{sink}: {spooled}\n{}", finished.log);
    }
    Ok(())
}
