//! The message of conf/fleet/flow.proto, which is made of this file: what stands
//! here is for those who read records elsewhere. A number, once given, keeps
//! its meaning; what comes new gets the next one.

/// A record: an event of a connection, of an expectation, or a loss. What is not
/// known is absent, never 0; where a field cannot be absent, 0 or nothing says so.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Record {
    /// When it happened: nanoseconds since the epoch.
    #[prost(fixed64, tag = "1")]
    pub time: u64,
    /// A sum: 1 new, 2 update, 4 destroy, 8 assured, 16 confirmed, 32 event of an expectation,
    /// 64 helper, 128 destroyed by garbage collection. 0: a loss.
    #[prost(uint32, tag = "2")]
    pub kinds: u32,
    /// Number of the IP protocol. As all up to orig_dport and icmp_code of the packet that opened
    /// the connection, before NAT; of an expectation what is expected, where 0 is for any.
    #[prost(uint32, optional, tag = "3")]
    pub protocol: Option<u32>,
    /// 4 or 16 bytes, as all addresses.
    #[prost(bytes = "vec", tag = "4")]
    pub orig_src: Vec<u8>,
    /// Port, key of GRE, or identifier of ICMP.
    #[prost(uint32, optional, tag = "5")]
    pub orig_sport: Option<u32>,
    /// As orig_src.
    #[prost(bytes = "vec", tag = "6")]
    pub orig_dst: Vec<u8>,
    /// Port or key of GRE.
    #[prost(uint32, optional, tag = "7")]
    pub orig_dport: Option<u32>,
    /// When the connection began, as time.
    #[prost(fixed64, optional, tag = "8")]
    pub start: Option<u64>,
    /// When it ended: the moment of expiry where the kernel tells it, else that of the event.
    #[prost(fixed64, optional, tag = "9")]
    pub stop: Option<u64>,
    /// Packets of the original direction, where the kernel counts.
    #[prost(uint64, optional, tag = "10")]
    pub orig_packets: Option<u64>,
    /// Their bytes, IP header included.
    #[prost(uint64, optional, tag = "11")]
    pub orig_bytes: Option<u64>,
    /// Packets of the reply direction.
    #[prost(uint64, optional, tag = "12")]
    pub reply_packets: Option<u64>,
    /// Their bytes.
    #[prost(uint64, optional, tag = "13")]
    pub reply_bytes: Option<u64>,
    /// The kernel's bits (enum ip_conntrack_status).
    #[prost(uint32, tag = "14")]
    pub status: u32,
    /// State of the protocol: enum tcp_conntrack, sctp_conntrack or ct_dccp_states.
    #[prost(uint32, optional, tag = "15")]
    pub state: Option<u32>,
    /// Why it ended, where that is known.
    #[prost(enumeration = "Cause", tag = "16")]
    pub cause: i32,
    /// Inode number of the network namespace.
    #[prost(uint32, optional, tag = "17")]
    pub netns_inode: Option<u32>,
    /// Cookie of the network namespace, which is never used again.
    #[prost(uint64, optional, tag = "18")]
    pub netns_cookie: Option<u64>,
    /// Conntrack zone.
    #[prost(uint32, tag = "19")]
    pub zone: u32,
    /// Mark.
    #[prost(uint32, tag = "20")]
    pub mark: u32,
    /// The kernel's id of the entry, which netlink tells.
    #[prost(fixed32, optional, tag = "21")]
    pub ct_id: Option<u32>,
    /// The source after NAT; there if its address or port was changed.
    #[prost(bytes = "vec", tag = "22")]
    pub nat_src: Vec<u8>,
    /// Its port, if nat_src is there and the protocol has one, as orig_sport.
    #[prost(uint32, optional, tag = "23")]
    pub nat_sport: Option<u32>,
    /// The destination after NAT; there if its address or port was changed.
    #[prost(bytes = "vec", tag = "24")]
    pub nat_dst: Vec<u8>,
    /// Its port, as orig_dport.
    #[prost(uint32, optional, tag = "25")]
    pub nat_dport: Option<u32>,
    /// Type of ICMP or ICMPv6.
    #[prost(uint32, optional, tag = "26")]
    pub icmp_type: Option<u32>,
    /// Its code.
    #[prost(uint32, optional, tag = "27")]
    pub icmp_code: Option<u32>,
    /// Name of the helper.
    #[prost(string, tag = "28")]
    pub helper: String,
    /// 16 bytes, as the kernel stores them.
    #[prost(bytes = "vec", tag = "29")]
    pub labels: Vec<u8>,
    /// The original tuple of the connection that expected this one: number of its protocol.
    #[prost(uint32, optional, tag = "30")]
    pub master_protocol: Option<u32>,
    /// Its source.
    #[prost(bytes = "vec", tag = "31")]
    pub master_src: Vec<u8>,
    /// Its source port, as orig_sport.
    #[prost(uint32, optional, tag = "32")]
    pub master_sport: Option<u32>,
    /// Its destination.
    #[prost(bytes = "vec", tag = "33")]
    pub master_dst: Vec<u8>,
    /// Its destination port, as orig_dport.
    #[prost(uint32, optional, tag = "34")]
    pub master_dport: Option<u32>,
    /// Netlink port over which somebody deleted it.
    #[prost(uint32, optional, tag = "35")]
    pub portid: Option<u32>,
    /// The process that deleted it.
    #[prost(uint32, optional, tag = "36")]
    pub pid: Option<u32>,
    /// Its name.
    #[prost(string, optional, tag = "37")]
    pub comm: Option<String>,
    /// Which sources told it, where two are compared.
    #[prost(enumeration = "Witness", tag = "38")]
    pub witness: i32,
    /// What happened to the expectation.
    #[prost(enumeration = "Action", tag = "39")]
    pub action: i32,
    /// Of a loss: which source lost events.
    #[prost(string, tag = "40")]
    pub lost_source: String,
    /// How many.
    #[prost(uint64, tag = "41")]
    pub lost_events: u64,
    /// Seconds until the entry would expire, where the source tells.
    #[prost(uint32, optional, tag = "42")]
    pub timeout: Option<u32>,
    /// Name of the host.
    #[prost(string, tag = "43")]
    pub host: String,
    /// With time it is the record id, 16 hexadecimal digits each: the same record that comes twice
    /// has the same.
    #[prost(fixed64, tag = "44")]
    pub hash: u64,
    /// Of a loss: none of the events happened before that time, nanoseconds since the epoch.
    #[prost(fixed64, tag = "45")]
    pub lost_since: u64,
}

/// Why a connection left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Cause {
    /// Not known, or it has not.
    Unspecified = 0,
    /// Its time was over; the garbage collector found it.
    ExpiredGc = 1,
    /// Its time was over; whoever came by found it.
    ExpiredLookup = 2,
    /// It had to make room in a full table.
    EarlyDrop = 3,
    /// A process deleted it.
    Deleted = 4,
    /// A process emptied the table.
    Flushed = 5,
    /// Its network namespace was removed.
    NetnsGone = 6,
    /// A SYN opened a closed TCP connection anew.
    TcpReopened = 7,
    /// A reset was the answer to its first packet.
    Reset = 8,
    /// It stood for a race that two packets of one flow had lost.
    NatClash = 9,
    /// Its end was lost, and found by comparing tables.
    Lost = 10,
    /// None of these.
    Other = 11,
}

/// Which sources told an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Witness {
    /// The one there is, or nobody has compared it.
    Unspecified = 0,
    /// Both.
    Both = 1,
    /// eBPF only.
    Ebpf = 2,
    /// Netlink only: what eBPF had missed is healed.
    Healed = 3,
}

/// What happened to an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Action {
    /// It is not about one.
    Unspecified = 0,
    /// Created.
    New = 1,
    /// Refreshed.
    Update = 2,
    /// Fulfilled, expired or removed.
    Destroy = 3,
}
