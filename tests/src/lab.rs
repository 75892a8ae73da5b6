//! The two places where tests happen. [`Lab`] is client – router – server, and the router tracks,
//! translates and helps (FTP) what passes; its log is the one under test. [`SingleNs`] is one
//! namespace for loads, whose flows nobody answers.
//!
//! ```text
//! client 10.77.1.2 fd77:1::2 — 10.77.1.1 fd77:1::1 router 10.77.2.1 fd77:2::1 — 10.77.2.2 fd77:2::2 server
//! ```

use anyhow::Result;

use crate::namespace::Namespace;

/// Seconds after which an idle flow of the lab expires: long enough for a busy machine to answer
/// within it, short enough to wait for.
pub const FLOW_TIMEOUT: u32 = 2;

/// What the router tracks, translates and helps.
const ROUTER_RULES: &str = r#"
table inet lab {
    ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
    chain help_ftp {
        type filter hook prerouting priority filter;
        tcp dport 21 ct helper set "ftp"
    }
    chain track_flows {
        type filter hook forward priority filter;
        ct state invalid counter
    }
    chain to_server {
        type nat hook prerouting priority dstnat;
        ip daddr 10.77.1.1 tcp dport 8080 dnat ip to 10.77.2.2:9000
    }
    chain to_outside {
        type nat hook postrouting priority srcnat;
        tcp dport 9001 masquerade
    }
}
"#;

/// What changes no line of the mix but what the kernel keeps with its flows: zones, one of them
/// with translation, marks and labels. What is sent to port 6 is never tracked: the entry made for
/// it goes with the packet.
const VARIETY_RULES: &str = "
table inet variety {
    chain zones {
        type filter hook prerouting priority raw;
        udp dport 9053 ct zone set 7
        udp sport 9053 ct zone set 7
        tcp dport 9001 ct zone set 8
        tcp sport 9001 ct zone set 8
    }
    chain marks_and_labels {
        type filter hook forward priority mangle;
        tcp dport 9000 ct mark set 42
        udp dport 9053 ct mark set 7 ct label set 3
        tcp dport 21 ct label set 100
        ip6 daddr fd77:2::2 tcp dport { 9000, 9001 } ct label set 64
        udp dport 6 drop
    }
}
";

/// What the router does with a mass of flows, which it knows by their ports.
const MASS_RULES: &str = "
table inet mass {
    chain zones {
        type filter hook prerouting priority raw;
        udp dport 9107 ct zone set 7
        udp sport 9107 ct zone set 7
        tcp dport 9108 ct zone set 8
        tcp sport 9108 ct zone set 8
    }
    chain to_server {
        type nat hook prerouting priority dstnat;
        ip saddr 198.18.0.0/16 tcp dport 9130 dnat ip to 10.77.2.3:9131
    }
    chain to_outside {
        type nat hook postrouting priority srcnat;
        ip saddr 198.18.0.0/16 tcp dport 9120 snat ip to 10.77.2.1
    }
    chain marks_and_labels {
        type filter hook forward priority mangle;
        udp dport 9142 ct mark set 42 ct label set 3
        udp sport 9142 ct mark set 43
    }
}
";

/// A machine on each link, with an address of Ethernet that nobody has, and the networks behind
/// it.
const MASS_ROUTES: &str = "neigh add 10.77.1.3 lladdr 02:77:00:00:01:03 dev client nud permanent
neigh add fd77:1::3 lladdr 02:77:00:00:01:03 dev client nud permanent
neigh add 10.77.2.3 lladdr 02:77:00:00:02:03 dev server nud permanent
neigh add fd77:2::3 lladdr 02:77:00:00:02:03 dev server nud permanent
route add 198.18.0.0/16 via 10.77.1.3
route add 198.19.0.0/16 via 10.77.2.3
route add fd78:1::/64 via fd77:1::3 dev client
route add fd78:2::/64 via fd77:2::3 dev server";

/// Port 9 of the server swallows what it gets: the discard port, without an answer.
const SERVER_RULES: &str = "
table inet lab {
    chain discard_port {
        type filter hook input priority filter;
        meta l4proto { tcp, udp } th dport 9 drop
    }
}
";

/// Tracks what is sent, and drops the load on its way back in, before anything looks at it.
const SINGLE_RULES: &str = "
table inet lab {
    chain track_flows {
        type filter hook output priority filter;
        ct state invalid counter
    }
    chain swallow_load {
        type filter hook prerouting priority raw;
        ip daddr 198.19.0.0/16 drop
    }
}
";

/// The timeouts, `nf_conntrack_` cut off, that [`Lab::set_flow_timeout`] sets.
const TIMEOUTS: [&str; 16] = [
    "generic_timeout",
    "gre_timeout",
    "icmp_timeout",
    "icmpv6_timeout",
    "sctp_timeout_closed",
    "sctp_timeout_cookie_wait",
    "tcp_timeout_close",
    "tcp_timeout_close_wait",
    "tcp_timeout_fin_wait",
    "tcp_timeout_last_ack",
    "tcp_timeout_syn_recv",
    "tcp_timeout_syn_sent",
    "tcp_timeout_time_wait",
    "tcp_timeout_unacknowledged",
    "udp_timeout",
    "udp_timeout_stream",
];

/// Client, router and server, each a namespace, with IPv4 and IPv6 between them.
#[derive(Debug)]
pub struct Lab {
    client: Namespace,
    router: Namespace,
    server: Namespace,
}

impl Lab {
    /// Builds the lab, with accounting and timestamps on and events not left to chance
    /// (`nf_conntrack_events=1`).
    ///
    /// # Errors
    /// The caller is not root, a tool (ip, nft, nsenter) or a kernel ability is missing.
    pub fn new() -> Result<Self> {
        Self::of(Namespace::new)
    }

    /// The same with namespaces that are called just `client`, `router` and `server`: in a guest,
    /// for people to read.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_plain_names() -> Result<Self> {
        Self::of(Namespace::called)
    }

    fn of(make: fn(&str) -> Result<Namespace>) -> Result<Self> {
        let lab =
            Self { client: make("client")?, router: make("router")?, server: make("server")? };
        for namespace in [&lab.client, &lab.router, &lab.server] {
            // No duplicate address detection: addresses are usable at once, on both ends.
            namespace.set_sysctls(&[("net/ipv6/conf/default/accept_dad", 0)])?;
        }
        lab.router.ip(&format!(
            "link add client type veth peer name eth0 netns {}\n\
             link add server type veth peer name eth0 netns {}\n\
             addr add 10.77.1.1/24 dev client\n\
             addr add fd77:1::1/64 dev client nodad\n\
             addr add 10.77.2.1/24 dev server\n\
             addr add fd77:2::1/64 dev server nodad\n\
             link set client up\n\
             link set server up",
            lab.client.name(),
            lab.server.name(),
        ))?;
        for (host, net) in [(&lab.client, 1), (&lab.server, 2)] {
            host.ip(&format!(
                "addr add 10.77.{net}.2/24 dev eth0\n\
                 addr add fd77:{net}::2/64 dev eth0 nodad\n\
                 link set eth0 up\n\
                 route add default via 10.77.{net}.1\n\
                 route add default via fd77:{net}::1"
            ))?;
        }
        lab.router
            .set_sysctls(&[("net/ipv4/ip_forward", 1), ("net/ipv6/conf/all/forwarding", 1)])?;
        lab.router.nft(ROUTER_RULES)?;
        lab.server.nft(SERVER_RULES)?;
        conntrack_defaults(&lab.router)?;
        lab.set_flow_timeout(FLOW_TIMEOUT)?;
        Ok(lab)
    }

    /// Adds conntrack zones, marks and labels to the flows of the mix, and a port (6) whose packets
    /// are dropped before their flow is tracked.
    ///
    /// # Errors
    /// This kernel has none.
    pub fn add_variety(&self) -> Result<()> {
        self.router.nft(VARIETY_RULES)
    }

    /// Lets the router forward, translate, mark and part into zones what [`crate::mass`] makes. The
    /// hosts take no notice of it: the frames on their links are for others.
    ///
    /// # Errors
    /// This kernel lacks something of it.
    pub fn add_mass_rules(&self) -> Result<()> {
        self.router.ip(MASS_ROUTES)?;
        self.router.nft(MASS_RULES)
    }

    /// Where the traffic comes from.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the flows are tracked and logged.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// Where the traffic goes to.
    pub fn server(&self) -> &Namespace {
        &self.server
    }

    /// Switches accounting on the router, for flows that begin after it.
    ///
    /// # Errors
    /// conntrack is not in this kernel.
    pub fn set_accounting(&self, on: bool) -> Result<()> {
        self.router.set_sysctls(&[("net/netfilter/nf_conntrack_acct", i32::from(on))])
    }

    /// Lets idle flows of any protocol and state but established TCP expire after so many
    /// seconds, from their next packet on; [`FLOW_TIMEOUT`] at first.
    ///
    /// # Errors
    /// conntrack is not in this kernel.
    pub fn set_flow_timeout(&self, seconds: u32) -> Result<()> {
        let sysctls = TIMEOUTS.map(|key| format!("net/netfilter/nf_conntrack_{key}"));
        self.router.set_sysctls(&sysctls.each_ref().map(|key| (key.as_str(), seconds)))
    }
}

/// One namespace that tracks what it sends over its loopback to 198.19.0.0/16, where nobody
/// answers and nothing is received: each flow costs its conntrack entry and little else. The
/// addresses are those that RFC 2544 sets apart for benchmarks.
#[derive(Debug)]
pub struct SingleNs {
    namespace: Namespace,
}

impl SingleNs {
    /// Builds the namespace; conntrack is set as in [`Lab::new`].
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn new() -> Result<Self> {
        Self::untracked()?.track()
    }

    /// Tracks what is sent from now on.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn track(self) -> Result<Self> {
        self.namespace.nft(SINGLE_RULES)?;
        Ok(self)
    }

    /// The same without any rule, so that nothing is tracked: a laptop without a firewall.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn untracked() -> Result<Self> {
        Self::within(Namespace::new("single")?)
    }

    /// The same in a namespace that is there already and has nothing yet.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn within(namespace: Namespace) -> Result<Self> {
        namespace.ip("addr add 198.18.0.1/32 dev lo\n\
             route add local 198.19.0.0/16 dev lo")?;
        conntrack_defaults(&namespace)?;
        Ok(Self { namespace })
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// Sets what the tests rely on, whatever the host's defaults are. Checksums are not looked at,
/// because the raw packets of the mix carry none.
fn conntrack_defaults(namespace: &Namespace) -> Result<()> {
    namespace.set_sysctls(&[
        ("net/netfilter/nf_conntrack_acct", 1),
        ("net/netfilter/nf_conntrack_timestamp", 1),
        ("net/netfilter/nf_conntrack_events", 1),
        ("net/netfilter/nf_conntrack_checksum", 0),
    ])
}
