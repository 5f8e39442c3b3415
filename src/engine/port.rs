//! What goes into the engine and what comes out: the whole of its contact with the world.

use std::io;
use std::net::SocketAddr;

use crate::config::Streams;
use crate::time::Instant;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Look up a host's addresses.
    Resolve {
        /// The name; a literal address never becomes a job.
        host: String,
        /// Goes into the addresses.
        port: u16,
    },
}

/// What became of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// All addresses, in the resolver's order; or its words.
    Resolved(Result<Vec<SocketAddr>, String>),
    /// The lane has no thread left for it; nothing was begun.
    Overloaded,
}
