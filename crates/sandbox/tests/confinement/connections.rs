//! Connections: those that come in go on, and none goes out.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use backstop_sandbox::{Sandbox, confine_calls_of_client};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, Shutdown, SocketType, connect, connect_unspec, sendto, shutdown,
    socket,
};

use crate::process::{
    Test, confine_calls_too, confine_files, confine_files_as, need_landlock, scratch,
};

pub(crate) const TESTS: &[Test] = &[
    (
        "nobody_is_connected_to_by_the_files_confinement",
        nobody_is_connected_to_by_files,
    ),
    (
        "nobody_is_connected_to_by_the_calls_confinement",
        nobody_is_connected_to_by_calls,
    ),
    (
        "ports_are_bound_that_are_listed_and_no_other",
        listed_ports_are_bound,
    ),
    (
        "a_client_connects_to_listed_ports_and_no_others",
        a_client_connects_to_listed_ports,
    ),
    (
        "files_are_removed_where_that_is_listed",
        files_are_removed_where_listed,
    ),
    ("sockets_are_local_streams", sockets_are_local_streams),
    ("local_sockets_lead_nowhere", local_sockets_lead_nowhere),
    (
        "connections_that_come_in_go_on",
        connections_that_come_in_go_on,
    ),
    (
        "an_accepted_connection_is_not_made_anew",
        an_accepted_connection_is_not_made_anew,
    ),
    (
        "sockets_from_before_do_not_connect",
        sockets_from_before_do_not_connect,
    ),
];

/// Makes a connection with the first bytes that are sent, without `connect`.
const FAST_OPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[track_caller]
fn is_not_permitted<T>(outcome: io::Result<T>) {
    let error = outcome.err().expect("it is refused");
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PERM), "{error}");
}

fn nobody_is_connected_to_by_files() {
    need_landlock(4);
    let (_listener, address) = listener();
    assert!(TcpStream::connect(address).is_ok());
    confine_files();
    let error = TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

fn nobody_is_connected_to_by_calls() {
    let (_listener, address) = listener();
    assert!(TcpStream::connect(address).is_ok());
    confine_calls_too();
    is_not_permitted(TcpStream::connect(address));
    is_not_permitted(TcpStream::connect("[::1]:9"));
    is_not_permitted(TcpListener::bind("127.0.0.1:0"));
}

fn listed_ports_are_bound() {
    need_landlock(4);
    let port = || listener().1.port();
    let (listed, other) = (port(), port());
    let mut sandbox = Sandbox::of_this_program();
    sandbox.bind_ports = vec![listed];
    confine_files_as(&sandbox);
    assert!(TcpListener::bind(("127.0.0.1", listed)).is_ok());
    let error = TcpListener::bind(("127.0.0.1", other)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

fn a_client_connects_to_listed_ports() {
    need_landlock(4);
    let ((_listed, listed), (_other, other)) = (listener(), listener());
    let sandbox = Sandbox {
        connect_ports: vec![listed.port()],
        ..Sandbox::default()
    };
    confine_files_as(&sandbox);
    let confined = confine_calls_of_client().unwrap();
    assert!(confined.is_enforced(), "{confined}");
    assert!(TcpStream::connect(listed).is_ok());
    let error = TcpStream::connect(other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    is_not_permitted(UdpSocket::bind("127.0.0.1:0"));
    is_not_permitted(UnixDatagram::unbound());
    let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, None);
    is_not_permitted(netlink.map_err(io::Error::from));
    assert!(std::fs::read("/proc/self/status").is_err());
}

fn files_are_removed_where_listed() {
    let (listed, other) = (scratch().join("inside"), scratch().join("outside"));
    let mut sandbox = Sandbox::of_this_program();
    for directory in [&listed, &other] {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("socket"), "").unwrap();
    }
    sandbox.allow_removing(&listed.join("socket"));
    confine_files_as(&sandbox);
    std::fs::remove_file(listed.join("socket")).unwrap();
    let error = std::fs::remove_file(other.join("socket")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(std::fs::write(listed.join("another"), "").is_err());
}

fn sockets_are_local_streams() {
    confine_calls_too();
    is_not_permitted(UdpSocket::bind("127.0.0.1:0"));
    is_not_permitted(UnixDatagram::unbound());
    is_not_permitted(UnixDatagram::pair());
    let families = [
        AddressFamily::INET,
        AddressFamily::INET6,
        AddressFamily::NETLINK,
        AddressFamily::PACKET,
        AddressFamily::VSOCK,
    ];
    for family in families {
        for kind in [SocketType::STREAM, SocketType::DGRAM, SocketType::RAW] {
            assert_eq!(
                socket(family, kind, None).unwrap_err(),
                Errno::PERM,
                "{family:?}"
            );
        }
    }
    assert!(socket(AddressFamily::UNIX, SocketType::STREAM, None).is_ok());
    let (mut one, mut other) = UnixStream::pair().unwrap();
    one.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    other.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
}

fn local_sockets_lead_nowhere() {
    let path = scratch().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    assert!(UnixStream::connect(&path).is_ok());
    confine_calls_too();
    is_not_permitted(UnixStream::connect(&path));
}

fn connections_that_come_in_go_on() {
    let (listener, address) = listener();
    let [first, second] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    confine_calls_too();
    let (later, _) = listener.accept().unwrap();
    for (mut one, mut other) in [
        (&first, &accepted),
        (&accepted, &first),
        (&second, &later),
        (&later, &second),
    ] {
        one.set_nodelay(true).unwrap();
        one.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        other.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }
    later.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((&second).read(&mut [0; 1]).unwrap(), 0);
}

fn an_accepted_connection_is_not_made_anew() {
    let (listener, address) = listener();
    let [_first, _second] = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let (before, _) = listener.accept().unwrap();
    // What is to be refused: dissolved, it connects to somebody else.
    connect_unspec(&before).unwrap();
    connect(&before, &address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    confine_calls_too();
    assert_eq!(connect_unspec(&accepted).unwrap_err(), Errno::PERM);
    assert_eq!(connect(&accepted, &address).unwrap_err(), Errno::PERM);
}

fn sockets_from_before_do_not_connect() {
    let (_somebody, address) = listener();
    let [fresh, control] =
        [(); 2].map(|()| socket(AddressFamily::INET, SocketType::STREAM, None).unwrap());
    let (listening, _) = listener();
    // What is to be refused, where the system does it at all: sending makes a connection.
    let sent = sendto(&control, b"hello", FAST_OPEN, &address);
    assert!(matches!(sent, Ok(5) | Err(Errno::OPNOTSUPP)), "{sent:?}");
    confine_calls_too();
    assert_eq!(connect(&fresh, &address).unwrap_err(), Errno::PERM);
    let sent = sendto(&fresh, b"hello", FAST_OPEN, &address);
    assert_eq!(sent.unwrap_err(), Errno::PERM);
    // A listening socket that no longer listens is a socket without a connection.
    shutdown(&listening, Shutdown::Read).unwrap();
    let sent = sendto(&listening, b"hello", FAST_OPEN, &address);
    assert_eq!(sent.unwrap_err(), Errno::PERM);
}
