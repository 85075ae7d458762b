//! A QUIC connection without sockets or clock: quinn's state machines of both ends, driven by whoever keeps the time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::congestion::ControllerFactory;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event, ServerConfig,
    StreamEvent, StreamId, TransportConfig, VarInt,
};

use crate::pair::Identity;

/// What a sender has to send.
#[derive(Debug, Clone)]
pub enum Work {
    /// Without end, from a moment on, until another.
    Bulk { from: Duration, until: Duration },
    /// Bodies of so many bytes at these times.
    Bodies { bytes: usize, at: Vec<Duration> },
}

/// One body that arrived: when it was due, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub due: Duration,
    pub took: Duration,
}

/// One end.
struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    address: SocketAddr,
}

impl End {
    /// Takes what a datagram brings in.
    fn receive(&mut self, now: Instant, from: SocketAddr, data: BytesMut) {
        let mut reply = Vec::new();
        match self.endpoint.handle(now, from, None, None, data, &mut reply) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.connection = self.endpoint.accept(incoming, now, &mut reply, None).ok();
            }
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Lets the state machines talk, and returns the datagrams that they send.
    fn transmit(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        let Some((handle, connection)) = &mut self.connection else { return datagrams };
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 10, &mut buffer) {
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            datagrams.extend(buffer[..transmit.size].chunks(segment).map(<[u8]>::to_vec));
            buffer.clear();
        }
        datagrams
    }

    fn wake(&mut self) -> Option<Instant> {
        self.connection.as_mut().and_then(|(_, connection)| connection.poll_timeout())
    }
}

/// A connection that sends one way.
pub struct Flow {
    work: Work,
    sender: End,
    receiver: End,
    ready: bool,
    bulk: Option<StreamId>,
    /// Streams that are not yet written to their end, with the bytes that are left.
    writing: VecDeque<(StreamId, usize)>,
    waiting: VecDeque<Duration>,
    due: BTreeMap<StreamId, Duration>,
    /// Bytes that arrived, and the bodies that did.
    pub received: u64,
    pub arrivals: Vec<Arrival>,
    pub sent_bodies: usize,
}

/// What both ends are set to.
fn settings(factory: Arc<dyn ControllerFactory + Send + Sync>) -> TransportConfig {
    let mut settings = TransportConfig::default();
    settings
        .stream_receive_window(VarInt::from_u32(16 << 20))
        .receive_window(VarInt::from_u32(64 << 20))
        .send_window(16 << 20)
        .max_concurrent_uni_streams(VarInt::from_u32(4096))
        .initial_rtt(Duration::from_millis(100))
        .max_idle_timeout(None)
        .congestion_controller_factory(factory);
    settings
}

const SENDER: u8 = 1;
const RECEIVER: u8 = 2;

impl Flow {
    /// The `index`-th flow of a network.
    pub fn new(index: u16, work: Work, factory: Arc<dyn ControllerFactory + Send + Sync>, now: Instant) -> Self {
        let identity = Identity::new();
        let address = |end: u8| SocketAddr::from(([10, 0, 0, end], 1000 + index));
        let seed = Some([u8::try_from(index % 251).unwrap(); 32]);
        let tls = quinn_proto::crypto::rustls::QuicServerConfig::try_from(identity.relay()).unwrap();
        let mut accept = ServerConfig::with_crypto(Arc::new(tls));
        accept.transport_config(Arc::new(settings(Arc::clone(&factory))));
        let tls = quinn_proto::crypto::rustls::QuicClientConfig::try_from(identity.agent()).unwrap();
        let mut dial = ClientConfig::new(Arc::new(tls));
        dial.transport_config(Arc::new(settings(factory)));

        let config = Arc::new(EndpointConfig::default());
        let receiver = End {
            endpoint: Endpoint::new(Arc::clone(&config), Some(Arc::new(accept)), true, seed),
            connection: None,
            address: address(RECEIVER),
        };
        let mut endpoint = Endpoint::new(config, None, true, seed);
        let connection = endpoint.connect(now, dial, address(RECEIVER), "relay.test").unwrap();
        let sender = End { endpoint, connection: Some(connection), address: address(SENDER) };
        Self {
            work,
            sender,
            receiver,
            ready: false,
            bulk: None,
            writing: VecDeque::new(),
            waiting: VecDeque::new(),
            due: BTreeMap::new(),
            received: 0,
            arrivals: Vec::new(),
            sent_bodies: 0,
        }
    }

    /// A datagram arrives at the receiver, or back at the sender.
    pub fn receive(&mut self, now: Instant, forward: bool, data: &[u8]) {
        let from = if forward { self.sender.address } else { self.receiver.address };
        let end = if forward { &mut self.receiver } else { &mut self.sender };
        end.receive(now, from, BytesMut::from(data));
    }

    /// Does what there is to do now. Returns the datagrams that leave: forward, and back.
    pub fn turn(&mut self, now: Instant, since_start: Duration) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut forward = self.sender.transmit(now);
        self.send(since_start);
        forward.extend(self.sender.transmit(now));
        let mut back = self.receiver.transmit(now);
        self.take_in(since_start);
        back.extend(self.receiver.transmit(now));
        (forward, back)
    }

    /// When there is something to do at the latest.
    pub fn wake(&mut self, start: Instant) -> Option<Instant> {
        let due = match &self.work {
            Work::Bulk { from, .. } => self.bulk.is_none().then_some(*from),
            Work::Bodies { at, .. } => at.get(self.sent_bodies).copied(),
        };
        let due = self.ready.then_some(due).flatten().map(|due| start + due);
        [due, self.sender.wake(), self.receiver.wake()].into_iter().flatten().min()
    }

    fn send(&mut self, now: Duration) {
        let Some((_, connection)) = &mut self.sender.connection else { return };
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.ready = true,
                Event::ConnectionLost { reason } => panic!("the connection was lost: {reason}"),
                _ => {}
            }
        }
        if !self.ready {
            return;
        }
        match &self.work {
            Work::Bulk { from, until } => {
                if self.bulk.is_none() && *from <= now {
                    self.bulk = connection.streams().open(Dir::Uni);
                    self.writing.extend(self.bulk.map(|id| (id, usize::MAX)));
                }
                if *until <= now {
                    self.writing.clear();
                }
            }
            Work::Bodies { at, bytes } => {
                while let Some(due) = at.get(self.sent_bodies).filter(|due| **due <= now) {
                    self.sent_bodies += 1;
                    self.waiting.push_back(*due);
                }
                while !self.waiting.is_empty() {
                    let Some(id) = connection.streams().open(Dir::Uni) else { break };
                    self.due.extend(self.waiting.pop_front().map(|due| (id, due)));
                    self.writing.push_back((id, *bytes));
                }
            }
        }
        let chunk = [0_u8; 1 << 16];
        for (id, left) in &mut self.writing {
            while *left > 0 {
                let Ok(written) = connection.send_stream(*id).write(&chunk[..chunk.len().min(*left)]) else { break };
                *left -= written;
            }
            if *left == 0 {
                connection.send_stream(*id).finish().unwrap();
            }
        }
        self.writing.retain(|(_, left)| *left > 0);
    }

    fn take_in(&mut self, now: Duration) {
        let Some((_, connection)) = &mut self.receiver.connection else { return };
        let mut readable = Vec::new();
        while let Some(event) = connection.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id }) => readable.push(id),
                Event::ConnectionLost { reason } => panic!("the connection was lost: {reason}"),
                _ => {}
            }
        }
        while let Some(id) = connection.streams().accept(Dir::Uni) {
            readable.push(id);
        }
        for id in readable {
            let mut stream = connection.recv_stream(id);
            let Ok(mut chunks) = stream.read(false) else { continue };
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => self.received += chunk.bytes.len() as u64,
                    Ok(None) => {
                        if let Some(due) = self.due.remove(&id) {
                            self.arrivals.push(Arrival { due, took: now.saturating_sub(due) });
                        }
                        break;
                    }
                    Err(_) => break,
                }
            }
            let _ = chunks.finalize();
        }
    }
}
