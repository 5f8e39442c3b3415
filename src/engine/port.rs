//! What goes into the engine and what comes out: the whole of its contact with the world.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::config::{Streams, Url};
use crate::time::{Instant, Span};

/// One connection's slot. The slot outlives the sockets that serve it one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

impl SessionId {
    /// As an index into tables kept by session.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One piece of work handed to a lane. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The socket of the session's last [`Command::Dial`] is connected.
    Connected(SessionId),
    /// So many bytes were put into [`receive_buffer`](super::Engine::receive_buffer) of the session.
    Received(SessionId, usize),
    /// The peer will send no more.
    Eof(SessionId),
    /// The socket failed, while connecting or later.
    Failed(SessionId, io::ErrorKind),
    /// A lane answered, in time or late.
    Reply(JobId, Reply),
    /// Time has passed. Free when nothing is due.
    Timeout,
    /// The operator wants these symbols from now on; everything else in it is as it was.
    Reload(Box<Streams>),
    /// The operator wants a clean stop.
    Stop,
}

/// Something to be done.
#[derive(Debug)]
pub enum Command {
    /// Connect a new socket for the session, in place of any that it has.
    Dial {
        /// For whom.
        session: SessionId,
        /// Where to.
        address: SocketAddr,
    },
    /// Close the session's socket at once, what is queued for it written if that is possible without waiting.
    Hangup {
        /// Whose.
        session: SessionId,
    },
    /// Give a job to its lane.
    Work {
        /// Comes back with the reply.
        id: JobId,
        /// What to do.
        job: Job,
        /// When the engine stops waiting for it.
        deadline: Instant,
    },
    /// Everything that had to be closed is closed.
    Exit,
}

/// Work that blocks, and so is done by other threads.
#[derive(Clone, PartialEq, Eq)]
pub enum Job {
    /// Look up a host's addresses.
    Resolve {
        /// The name; a literal address never becomes a job.
        host: String,
        /// Goes into the addresses.
        port: u16,
    },
    /// GET something public, without following where the answer points.
    Get {
        /// Scheme, host, port and path prefix.
        base: Url,
        /// Path and query behind the base. The query is not shown to anybody: that is where signatures stand.
        target: String,
    },
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, port } => write!(f, "Resolve({host}:{port})"),
            Self::Get { base, target } => {
                write!(f, "Get({base}{})", target.split('?').next().unwrap_or_default())
            }
        }
    }
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All addresses, in the resolver's order; or its words.
    Resolved(Result<Vec<SocketAddr>, String>),
    /// An HTTP answer, whatever its status; or why there is none.
    Got(Result<Response, GetFailure>),
    /// The lane has no thread left for it; nothing was begun.
    Overloaded,
}

/// An HTTP answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, where it is a number of seconds.
    pub retry_after: Option<Span>,
    /// `X-MBX-USED-WEIGHT-1M`: what this address has used in the venue's present minute. May be -1, which says nothing.
    pub used_weight: Option<i64>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// Why there is no HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetFailure {
    /// The cause, for people; without the target.
    pub words: String,
    /// False if not a byte of the request can have reached the venue.
    pub sent: bool,
}
