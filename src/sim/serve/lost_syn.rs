//! A port where connecting neither succeeds nor fails.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An address where every SYN is lost: a listener whose queue is full and never emptied.
#[derive(Debug)]
pub struct LostSyn {
    /// Connecting here neither succeeds nor fails.
    pub address: SocketAddr,
    _listener: socket2::Socket,
    _queue: Vec<std::net::TcpStream>,
}

/// Listens on a free port of `ip` and fills the queue.
///
/// # Errors
/// The port cannot be had, or the system's queue does not fill.
pub fn lost_syn(ip: IpAddr) -> io::Result<LostSyn> {
    let listener =
        socket2::Socket::new(socket2::Domain::for_address(SocketAddr::new(ip, 0)), socket2::Type::STREAM, None)?;
    listener.bind(&SocketAddr::new(ip, 0).into())?;
    listener.listen(0)?;
    let address = listener.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
    let mut queue = Vec::new();
    for _ in 0..SYN_QUEUE_MAX {
        match std::net::TcpStream::connect_timeout(&address, SYN_WAIT) {
            Ok(stream) => queue.push(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Ok(LostSyn { address, _listener: listener, _queue: queue });
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the listen queue does not fill"))
}

/// On loopback an accepted SYN is answered in microseconds.
const SYN_WAIT: Duration = Duration::from_millis(300);
const SYN_QUEUE_MAX: usize = 16;
