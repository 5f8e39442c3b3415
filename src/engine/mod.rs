//! The pure core: it is told what happened and when, and says what to do and when to be woken.

mod port;

pub use port::{Command, Event, Job, JobId, Reply, SessionId};
