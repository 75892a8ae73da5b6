//! Peers whose names are looked up: later than the start, anew, and in vain.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// A name server that answers what it is set to.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Vec<SocketAddr>>>);

impl Server {
    fn answer(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = addresses.to_vec();
    }

    fn resolver(&self) -> Resolver {
        let server = self.clone();
        Resolver::new(move |_, _| Ok(server.0.lock().unwrap().clone()))
    }
}

fn listener(last: u8, port: u16) -> (UdpSocket, SocketAddr) {
    let listener = UdpSocket::bind(SocketAddr::from(([127, 0, 0, last], port))).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn receive(listener: &UdpSocket, records: usize) -> Vec<u32> {
    let mut buffer = [0; 200];
    (0..records)
        .flat_map(|_| {
            let length = listener.recv(&mut buffer).unwrap();
            numbers(&buffer[..length])
        })
        .collect()
}

#[test]
fn a_name_that_is_unknown_at_first_is_awaited() {
    let (listener, address) = listener(1, 0);
    let server = Server::default();
    let name = Address::Udp("loghost".to_owned(), address.port());
    let mut sender = Sender::named(name, server.resolver());
    sender.send(5);
    sender.until("a failure", |sender| sender.output.is_failing());
    assert!(!sender.output.is_known());
    server.answer(&[address]);
    sender.until_all_arrived();
    assert_eq!(receive(&listener, 5), [0, 1, 2, 3, 4]);
    assert_eq!(sender.get(Measure::Lost), 0);
}

#[test]
fn a_datagram_peer_that_moves_is_followed() {
    let (first, address) = listener(1, 0);
    let (second, moved) = listener(2, address.port());
    let server = Server::default();
    server.answer(&[address]);
    let name = Address::Udp("loghost".to_owned(), address.port());
    let mut sender = Sender::named(name, server.resolver());
    sender.send(3);
    sender.until_all_arrived();
    assert_eq!(receive(&first, 3), [0, 1, 2]);
    // It is looked up once a minute by itself, also while there is nothing to send.
    assert!(sender.output.retry_in().is_some_and(|due| due <= Duration::from_secs(60)));
    server.answer(&[moved]);
    sender.output.reopen();
    sender.until("the look-up", |sender| sender.output.route.addresses() == "127.0.0.2");
    sender.send(3);
    sender.until_all_arrived();
    assert_eq!(receive(&second, 3), [3, 4, 5]);
}

#[test]
fn hup_has_a_stream_leave_an_address_that_the_name_does_not_have_any_more() {
    let first = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = first.local_addr().unwrap();
    let second = TcpListener::bind(("127.0.0.2", address.port())).unwrap();
    let server = Server::default();
    server.answer(&[address]);
    let name = Address::Tcp("loghost".to_owned(), address.port());
    let mut sender = Sender::named(name, server.resolver());
    sender.send(3);
    sender.until_all_arrived();
    let (_peer, _) = first.accept().unwrap();
    server.answer(&[second.local_addr().unwrap()]);
    sender.output.reopen();
    sender.until("the look-up", |sender| sender.output.route.addresses() == "127.0.0.2");
    sender.send(3);
    let (mut peer, _) = second.accept().unwrap();
    sender.until_all_arrived();
    let mut text = vec![0; 300];
    peer.read_exact(&mut text).unwrap();
    assert_eq!(numbers(&text), [3, 4, 5]);
}

/// The name servers are silent: the old address stays in use, and nothing waits.
#[test]
fn a_look_up_that_hangs_leaves_the_old_address_in_use() {
    let (listener, address) = listener(1, 0);
    let hang = Arc::new(Mutex::new(()));
    let calls = AtomicU32::new(0);
    let inside = hang.clone();
    let resolver = Resolver::new(move |_, _| {
        if calls.fetch_add(1, Ordering::Relaxed) > 0 {
            drop(inside.lock().unwrap());
        }
        Ok(vec![address])
    });
    let held = hang.lock().unwrap();
    let name = Address::Udp("loghost".to_owned(), address.port());
    let mut sender = Sender::named(name, resolver);
    sender.send(2);
    sender.until_all_arrived();
    let start = Instant::now();
    for _ in 0..3 {
        sender.output.reopen();
        sender.send(2);
    }
    sender.output.close();
    assert!(start.elapsed() < Duration::from_secs(2), "it has waited");
    assert_eq!(receive(&listener, 8), (0..8).collect::<Vec<_>>());
    assert_eq!((sender.get(Measure::Records), sender.get(Measure::Lost)), (8, 0));
    drop(held);
}
