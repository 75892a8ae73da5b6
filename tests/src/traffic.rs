//! A mix of flows through the [`Lab`] whose log lines are known beforehand: every protocol and
//! fate that changes a line. Both ends of a dialogue are held by one thread, so that it goes step
//! by step and each flow has the packets that were meant.

use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use crate::lab::Lab;
use crate::packet::{self, protocol};
use crate::poll::PATIENCE;

/// Source ports that one mix takes, and as many of the server for FTP data: mixes that follow
/// each other in a lab start this far apart.
pub const PORTS: u16 = 64;

const CLIENT4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2));
const CLIENT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 1, 0, 0, 0, 0, 0, 2));
const ROUTER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1));
const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 2));
const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 2, 0, 0, 0, 0, 0, 2));
/// What the router puts in the place of the client's address.
const MASQUERADE4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 2, 1));
const MASQUERADE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 2, 0, 0, 0, 0, 0, 1));

/// How far a flow comes, as conntrack sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// No packet came back (a refused TCP connection dies with the only one that does).
    Unreplied,
    /// Seen in both directions.
    Replied,
    /// Established, so that early drop spares it.
    Assured,
}

/// One direction of a flow, as PRINTFLOW writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Where from.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source and destination port; for ICMP type and code; else nothing.
    pub detail: (u16, u16),
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SRC={} DST={} ", self.source, self.destination)?;
        let (first, second) = self.detail;
        match self.protocol {
            protocol::TCP => write!(f, "PROTO=TCP SPT={first} DPT={second} "),
            protocol::UDP => write!(f, "PROTO=UDP SPT={first} DPT={second} "),
            // As ulogd2 writes it, with the two labels swapped.
            protocol::ICMP => write!(f, "PROTO=ICMP TYPE={second} CODE={first} "),
            protocol::ESP => write!(f, "PROTO=ESP "),
            protocol::AH => write!(f, "PROTO=AH "),
            number => write!(f, "PROTO={number} "),
        }
    }
}

/// A flow that the mix made.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The original direction, as the client sent it.
    pub orig: Tuple,
    /// The reply direction, where translation shows.
    pub reply: Tuple,
    /// How far it came.
    pub reach: Reach,
    /// Whether a helper (FTP) looks at it.
    pub helper: bool,
}

impl Flow {
    /// The line with this tag and without counters: exactly that of a `[NEW]` event.
    pub fn line(&self, tag: &str) -> String {
        const ZERO: &str = "PKTS=0 BYTES=0 ";
        format!("[{tag}] ORIG: {}{ZERO}, REPLY: {}{ZERO}", self.orig, self.reply)
    }

    pub(crate) fn new(protocol: u8, from: SocketAddr, to: SocketAddr, reach: Reach) -> Self {
        let (source, destination) = (from.ip(), to.ip());
        let detail = (from.port(), to.port());
        let is_icmp = protocol == protocol::ICMP;
        let back = if is_icmp { detail } else { (detail.1, detail.0) };
        Self {
            orig: Tuple { source, destination, protocol, detail },
            reply: Tuple { source: destination, destination: source, protocol, detail: back },
            reach,
            helper: false,
        }
    }

    pub(crate) fn masqueraded(mut self, as_address: IpAddr) -> Self {
        self.reply.destination = as_address;
        self
    }

    pub(crate) fn redirected(mut self, to: SocketAddr) -> Self {
        self.reply.source = to.ip();
        self.reply.detail.0 = to.port();
        self
    }
}

/// Sends the whole mix, with source ports from `base` on, and tells what it made. All its flows
/// have begun when this returns; none is expected to have ended but the refused one.
///
/// # Errors
/// A dialogue did not go as it should: the lab does not forward, translate or answer.
pub fn mix(lab: &Lab, base: u16) -> Result<Vec<Flow>> {
    let server = lab.server().enter(|| Server::bind(base + PORTS / 2))?;
    lab.client().enter(|| {
        let mut client = Client { port: base, flows: Vec::new() };
        for (from, to) in [(CLIENT4, SERVER4), (CLIENT6, SERVER6)] {
            client.tcp_served(from, to, &server).context("TCP")?;
            client.tcp_unanswered(from, to).context("TCP without an answer")?;
            client.udp(from, to, &server).context("UDP")?;
        }
        client.tcp_redirected(&server).context("DNAT")?;
        client.icmp().context("ICMP")?;
        client.without_ports().context("other protocols")?;
        client.ftp(&server).context("FTP")?;
        ensure!(client.port <= base + PORTS / 2, "the mix needs more ports than PORTS");
        Ok(client.flows)
    })
}

/// The listening ends, in the server's namespace.
struct Server {
    plain: TcpListener,
    masqueraded: TcpListener,
    ftp: TcpListener,
    ftp_data: TcpListener,
    udp: UdpSocket,
}

impl Server {
    fn bind(ftp_data_port: u16) -> Result<Self> {
        // Of both families at once.
        let any = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        Ok(Self {
            plain: TcpListener::bind(any(9000))?,
            masqueraded: TcpListener::bind(any(9001))?,
            ftp: TcpListener::bind(any(21))?,
            ftp_data: TcpListener::bind(any(ftp_data_port))?,
            udp: patient_udp(any(9053))?,
        })
    }
}

/// The calling end, on a thread in the client's namespace.
struct Client {
    port: u16,
    flows: Vec<Flow>,
}

impl Client {
    /// An address with the next source port.
    fn next(&mut self, address: IpAddr) -> SocketAddr {
        self.port += 1;
        SocketAddr::new(address, self.port)
    }

    fn tcp_served(&mut self, source: IpAddr, target: IpAddr, server: &Server) -> Result<()> {
        let (from, to) = (self.next(source), SocketAddr::new(target, 9000));
        talk_tcp(from, to, &server.plain)?;
        self.flows.push(Flow::new(protocol::TCP, from, to, Reach::Assured));

        let (from, to) = (self.next(source), SocketAddr::new(target, 9001));
        talk_tcp(from, to, &server.masqueraded)?;
        let outside = if source.is_ipv4() { MASQUERADE4 } else { MASQUERADE6 };
        let flow = Flow::new(protocol::TCP, from, to, Reach::Assured).masqueraded(outside);
        self.flows.push(flow);
        Ok(())
    }

    fn tcp_redirected(&mut self, server: &Server) -> Result<()> {
        let (from, to) = (self.next(CLIENT4), SocketAddr::new(ROUTER4, 8080));
        talk_tcp(from, to, &server.plain)?;
        let flow = Flow::new(protocol::TCP, from, to, Reach::Assured);
        self.flows.push(flow.redirected(SocketAddr::new(SERVER4, 9000)));
        Ok(())
    }

    fn tcp_unanswered(&mut self, source: IpAddr, target: IpAddr) -> Result<()> {
        let (from, refused) = (self.next(source), SocketAddr::new(target, 7));
        match bound_tcp(from)?.connect_timeout(&refused.into(), PATIENCE) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            other => bail!("a closed port answered {other:?}"),
        }
        self.flows.push(Flow::new(protocol::TCP, from, refused, Reach::Unreplied));

        let (from, swallowed) = (self.next(source), SocketAddr::new(target, 9));
        let socket = bound_tcp(from)?;
        socket.set_nonblocking(true)?;
        // The first packet has left when this fails with "in progress"; closing forgets the rest.
        ensure!(socket.connect(&swallowed.into()).is_err(), "port 9 answered");
        self.flows.push(Flow::new(protocol::TCP, from, swallowed, Reach::Unreplied));
        Ok(())
    }

    fn udp(&mut self, source: IpAddr, target: IpAddr, server: &Server) -> Result<()> {
        let (from, to) = (self.next(source), SocketAddr::new(target, 9053));
        ask_udp(&patient_udp(from)?, to, &server.udp)?;
        self.flows.push(Flow::new(protocol::UDP, from, to, Reach::Replied));
        // Swallowed, and refused by an ICMP error, which is no reply of the flow.
        for port in [9, 9999] {
            let (from, to) = (self.next(source), SocketAddr::new(target, port));
            UdpSocket::bind(from)?.send_to(b"question", to)?;
            self.flows.push(Flow::new(protocol::UDP, from, to, Reach::Unreplied));
        }
        Ok(())
    }

    fn icmp(&mut self) -> Result<()> {
        // Echo, echo with a code that shows the label swap, timestamp: request type, code, reply.
        for (request, code, reply) in [(8, 0, 0), (8, 5, 0), (13, 0, 14)] {
            let id = self.next(CLIENT4).port();
            packet::ping(SocketAddr::new(SERVER4, 0), request, code, reply, id)?;
            // Type and code are the detail; the reply repeats those of the original direction.
            let from = SocketAddr::new(CLIENT4, request.into());
            let to = SocketAddr::new(SERVER4, code.into());
            self.flows.push(Flow::new(protocol::ICMP, from, to, Reach::Replied));
        }
        let id = self.next(CLIENT6).port();
        let (from, to) = (SocketAddr::new(CLIENT6, 0), SocketAddr::new(SERVER6, 0));
        packet::ping(to, 128, 0, 129, id)?;
        self.flows.push(Flow::new(protocol::ICMPV6, from, to, Reach::Replied));
        Ok(())
    }

    fn without_ports(&mut self) -> Result<()> {
        let from = SocketAddr::new(CLIENT4, 0);
        let to = SocketAddr::new(SERVER4, 0);
        let sctp = packet::sctp_init(self.next(CLIENT4).port(), 9000);
        let others = [protocol::GRE, protocol::ESP, protocol::AH, protocol::OSPF];
        for number in others.into_iter().chain([protocol::SCTP]) {
            let payload = if number == protocol::SCTP { &sctp[..] } else { &[0; 32] };
            packet::send_raw(to, number, payload)?;
            self.flows.push(Flow::new(number, from, to, Reach::Unreplied));
        }
        Ok(())
    }

    /// A control connection that announces a data port, and the connection expected there.
    fn ftp(&mut self, server: &Server) -> Result<()> {
        let (from, to) = (self.next(CLIENT4), SocketAddr::new(SERVER4, 21));
        let (client, control) = connect_tcp(from, to, &server.ftp)?;
        let data_port = server.ftp_data.local_addr()?.port();
        let [high, low] = data_port.to_be_bytes();
        say(&control, &client, "220 ready")?;
        say(&client, &control, "PASV")?;
        say(&control, &client, &format!("227 Entering Passive Mode (10,77,2,2,{high},{low})."))?;
        let mut flow = Flow::new(protocol::TCP, from, to, Reach::Assured);
        flow.helper = true;
        self.flows.push(flow);

        let (from, to) = (self.next(CLIENT4), SocketAddr::new(SERVER4, data_port));
        talk_tcp(from, to, &server.ftp_data)?;
        self.flows.push(Flow::new(protocol::TCP, from, to, Reach::Assured));
        hang_up(client, control)
    }
}

/// Question and answer over a new TCP connection, closed by the client.
fn talk_tcp(from: SocketAddr, to: SocketAddr, listener: &TcpListener) -> Result<()> {
    let (client, server) = connect_tcp(from, to, listener)?;
    say(&client, &server, "question")?;
    say(&server, &client, "answer")?;
    hang_up(client, server)
}

fn connect_tcp(
    from: SocketAddr,
    to: SocketAddr,
    listener: &TcpListener,
) -> Result<(TcpStream, TcpStream)> {
    let socket = bound_tcp(from)?;
    socket.connect_timeout(&to.into(), PATIENCE).with_context(|| format!("{from} to {to}"))?;
    let (server, _from) = listener.accept()?;
    let client = TcpStream::from(socket);
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((client, server))
}

/// Sends a line and waits until it has arrived.
fn say(mut from: &TcpStream, to: &TcpStream, line: &str) -> Result<()> {
    from.write_all(format!("{line}\r\n").as_bytes())?;
    let mut heard = String::new();
    BufReader::new(to).read_line(&mut heard)?;
    ensure!(heard.trim_end() == line, "said {line:?}, heard {heard:?}");
    Ok(())
}

/// Closes the client's end, then the server's, and waits until both know.
fn hang_up(mut client: TcpStream, mut server: TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    client.shutdown(std::net::Shutdown::Write)?;
    server.read_to_end(&mut rest)?;
    drop(server);
    client.read_to_end(&mut rest)?;
    ensure!(rest.is_empty(), "unread: {rest:?}");
    Ok(())
}

fn bound_tcp(from: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into()).with_context(|| format!("bind {from}"))?;
    Ok(socket)
}

fn patient_udp(from: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(from).with_context(|| format!("bind {from}"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn ask_udp(client: &UdpSocket, to: SocketAddr, server: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 64];
    client.send_to(b"question", to)?;
    let (length, asker) = server.recv_from(&mut buffer).context("no question")?;
    server.send_to(&buffer[..length], asker)?;
    client.recv_from(&mut buffer).context("no answer")?;
    Ok(())
}
