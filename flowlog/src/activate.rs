//! Makes the kernel track connections where no rule does: one rule that needs
//! conntrack, in an nf_tables table that belongs to a netlink socket of ours.
//! The kernel removes it with the socket, however the process ends.
//!
//! The rule stands in a chain without hook and never sees a packet: setting up
//! its `ct` expression is what registers conntrack's hooks (`nft_ct_get_init` →
//! `nf_ct_netns_get`, net/netfilter/nft_ct.c, 6.18).

use std::io;
use std::process;
use std::thread::sleep;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, NfTablesMessage, Operator,
    Register, RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};
use thiserror::Error;

use crate::capture::netlink::attr::Messages;
use crate::capture::netlink::exchange::{is_transient, malformed, refusal};
use crate::capture::netlink::request::{plain, request};
use crate::capture::netlink::socket::NetfilterSocket;

/// `NFNL_SUBSYS_NFTABLES`, which a batch names as its resource.
const SUBSYS_NFTABLES: u16 = 10;
/// Name of the chain.
const CHAIN: &str = "keeps-conntrack-active";
/// `NF_CT_STATE_BIT(IP_CT_NEW)`: `ct state new`.
const STATE_NEW: u32 = 8;
/// Room for the acknowledgements of a batch.
const REPLY: usize = 8192;
/// How often it is tried at most, and the time between, while the kernel is short
/// of memory or busy.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// Tables tried under other names, when the first is taken.
const NAMES: u32 = 16;

/// Conntrack cannot be made active.
#[derive(Debug, Error)]
pub enum ActivationError {
    /// No right to make rules.
    #[error("rules cannot be made: {0}; it needs CAP_NET_ADMIN: run it as root")]
    NotPermitted(io::Error),
    /// The kernel has no nf_tables, or its module is missing.
    #[error(
        "the kernel has no nf_tables: {0}; load the module nf_tables, or add a rule that needs \
         conntrack with iptables and set activate=0"
    )]
    NoNfTables(io::Error),
    /// The kernel knows no tables that end with their owner.
    #[error(
        "the table `{table}` is refused: {cause}; a table that goes with its process needs \
         Linux 5.12 with nf_tables for inet: add a rule with `ct state` yourself and set \
         activate=0"
    )]
    NoOwner {
        /// Its name.
        table: String,
        /// Why.
        cause: io::Error,
    },
    /// The kernel cannot match on conntrack.
    #[error(
        "the rule that needs conntrack is refused: {0}; load the modules nft_ct and \
         nf_conntrack"
    )]
    NoConntrack(io::Error),
    /// The socket failed.
    #[error("nf_tables cannot be talked to: {0}; see `flowlog check`")]
    Socket(#[from] io::Error),
}

/// Keeps the kernel tracking connections, IPv4 and IPv6, in the namespace where
/// it was made, until it is dropped or the process ends.
pub struct Activation {
    // The table belongs to this socket.
    _socket: NetfilterSocket,
    table: String,
}

/// The messages of the batch; the value is the sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Step {
    Begin = 1,
    Table,
    Chain,
    Rule,
    End,
}

impl Activation {
    /// Makes the table in the current network namespace.
    ///
    /// # Errors
    /// The kernel refuses it; the error says what to do.
    pub fn hold() -> Result<Self, ActivationError> {
        for _ in 1..ATTEMPTS {
            match Self::hold_once() {
                // The table goes with the socket, whatever became of it.
                Err(ActivationError::Socket(error)) if is_transient(&error) => sleep(PAUSE),
                result => return result,
            }
        }
        Self::hold_once()
    }

    fn hold_once() -> Result<Self, ActivationError> {
        let socket = NetfilterSocket::open()?;
        let mut number = 0;
        loop {
            // Processes of several PID namespaces may share a network namespace
            // and a PID.
            number += 1;
            let table = match number {
                1 => format!("flowlog-{}", process::id()),
                _ => format!("flowlog-{}-{number}", process::id()),
            };
            socket.send(&batch(&table))?;
            match outcome(&socket)? {
                None => return Ok(Self { _socket: socket, table }),
                Some((seq, libc::EEXIST | libc::EPERM))
                    if seq == Step::Table as u32 && number < NAMES => {}
                Some((seq, errno)) => return Err(explain(seq, errno, table)),
            }
        }
    }

    /// Name of the table, of family inet.
    pub fn table(&self) -> &str {
        &self.table
    }
}

/// The first error among the acknowledgements: sequence number and errno. The
/// kernel has put all of them into the queue before the send returned.
fn outcome(socket: &NetfilterSocket) -> io::Result<Option<(u32, i32)>> {
    let mut first = None;
    let mut acknowledged = 0;
    let mut buffer = vec![0; REPLY];
    loop {
        let datagram = match socket.receive(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // An answer to nothing at all is no success.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && acknowledged > 0 => {
                return Ok(first);
            }
            other => other?,
        };
        for message in Messages::new(datagram) {
            let message = message.map_err(malformed)?;
            let Some(errno) = refusal(&message) else { continue };
            acknowledged += 1;
            if errno != 0 {
                first = first.or(Some((message.seq, errno)));
            }
        }
    }
}

fn explain(seq: u32, errno: i32, table: String) -> ActivationError {
    let cause = io::Error::from_raw_os_error(errno);
    match seq {
        _ if seq == Step::Rule as u32 => ActivationError::NoConntrack(cause),
        _ if seq == Step::Table as u32 || seq == Step::Chain as u32 => {
            ActivationError::NoOwner { table, cause }
        }
        // The batch as a whole.
        _ if errno == libc::EPERM => ActivationError::NotPermitted(cause),
        _ => ActivationError::NoNfTables(cause),
    }
}

/// Table, chain and rule in one transaction.
fn batch(table: &str) -> Vec<u8> {
    let table_attributes =
        vec![TableAttribute::Name(table.to_owned()), TableAttribute::Flags(TableFlags::Owner)];
    let chain_attributes =
        vec![ChainAttribute::Table(table.to_owned()), ChainAttribute::Name(CHAIN.to_owned())];
    let rule_attributes = vec![
        RuleAttribute::Table(table.to_owned()),
        RuleAttribute::Chain(CHAIN.to_owned()),
        RuleAttribute::Expressions(ct_state_new().map(Into::into).into()),
    ];
    let create = NLM_F_ACK | NLM_F_CREATE;
    [
        control(ControlMessage::BatchBegin, Step::Begin),
        change(
            NfTablesMessage::NewTable(TableMessage { attributes: table_attributes }),
            create | NLM_F_EXCL,
            Step::Table,
        ),
        change(
            NfTablesMessage::NewChain(ChainMessage { attributes: chain_attributes }),
            create,
            Step::Chain,
        ),
        change(
            NfTablesMessage::NewRule(RuleMessage { attributes: rule_attributes }),
            create,
            Step::Rule,
        ),
        control(ControlMessage::BatchEnd, Step::End),
    ]
    .concat()
}

fn control(message: ControlMessage, step: Step) -> Vec<u8> {
    let inner = NetfilterMessageInner::from(message);
    request(NetfilterProtoFamily::Unspec, SUBSYS_NFTABLES, inner, NLM_F_REQUEST, step as u32)
}

fn change(message: NfTablesMessage, flags: u16, step: Step) -> Vec<u8> {
    request(NetfilterProtoFamily::Inet, 0, message, NLM_F_REQUEST | flags, step as u32)
}

/// `NFTA_CT_DREG` (1) and `NFTA_CT_KEY` (2), the latter `NFT_CT_STATE` (0); and
/// the comparison that makes it a rule which `nft list` can print.
fn ct_state_new() -> [Expressions; 2] {
    let register = u32::from(Register::Reg1).to_be_bytes();
    [
        Expressions::Other {
            expression_type: "ct".to_owned(),
            attributes: vec![plain(1, &register), plain(2, &0u32.to_be_bytes())],
        },
        Expressions::Cmp(vec![
            Cmp::SourceRegister(Register::Reg1),
            Cmp::Op(Operator::Equal),
            Cmp::Data(DataAttribute::Value(STATE_NEW.to_ne_bytes().to_vec())),
        ]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_is_five_messages_in_order() {
        let bytes = batch("flowlog-1");
        let messages: Vec<_> = Messages::new(&bytes).map(Result::unwrap).collect();
        let kinds: Vec<u16> = messages.iter().map(|m| m.kind).collect();
        assert_eq!(kinds, [0x10, 0x0a00, 0x0a03, 0x0a06, 0x11]);
        let steps: Vec<u32> = messages.iter().map(|m| m.seq).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn each_refusal_says_what_to_do() {
        let say = |step: Step, errno| explain(step as u32, errno, "t".to_owned()).to_string();
        assert!(say(Step::Begin, libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(say(Step::Begin, libc::EOPNOTSUPP).contains("no nf_tables"));
        assert!(say(Step::Table, libc::EINVAL).contains("5.12"));
        assert!(say(Step::Rule, libc::ENOENT).contains("nft_ct"));
    }
}
