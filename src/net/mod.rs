//! One connection, without a socket: bytes in, text out, and a deadline at every stage.
//!
//! Nothing here knows Binance, JSON or who is connected. A [`Session`] is told what happened to its socket and what
//! time it is; it says what to dial, what to write and when it wants to be woken.

mod channel;
mod ending;
mod link;
mod session;
mod tls;
mod upgrade;

pub use ending::{Ending, Stage};
pub use link::Incoming;
pub(crate) use link::{CLOCK_HINT, tls_words};
pub(crate) use session::authority;
pub use session::{Request, SendRefused, Session, SessionEvent, Settings, State};
pub use tls::{TlsError, client_config};
