//! What goes wrong with a transport on purpose.

use std::time::{Duration, Instant};

/// How fast the bytes of a stage leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// As the client reads.
    #[default]
    Normal,
    /// Not at all.
    Mute,
    /// One byte each time this long has passed.
    Trickle(Duration),
}

/// What is wrong with the transport, from now until it is set otherwise, for every connection in that stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The port is closed: connecting is refused. Open connections stay.
    pub port_closed: bool,
    /// Our side of the TLS handshake.
    pub tls: Pace,
    /// The 101 answer.
    pub upgrade: Pace,
    /// Everything on an open WebSocket.
    pub frames: Pace,
    /// REST answers and refusals.
    pub rest: Pace,
    /// Nothing is read any more; what is queued still leaves.
    pub deaf: bool,
}

/// Something that befalls all present connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// RST.
    Reset,
    /// FIN without a close frame or a TLS goodbye.
    Fin,
    /// Half-open: the sockets stay, nothing is read or sent on them ever again.
    Hold,
    /// Nothing moves for this long, not even for those who come meanwhile; then everything that was queued leaves. A
    /// later freeze takes the place of an earlier one, so one of no length is a thaw.
    Freeze(Duration),
}

impl Pace {
    /// How many of `queued` bytes may leave now.
    pub(super) fn allow(self, queued: usize, now: Instant, next_byte: &mut Option<Instant>) -> usize {
        match self {
            Self::Normal => queued,
            Self::Mute => 0,
            Self::Trickle(every) => {
                if queued == 0 || next_byte.is_some_and(|at| now < at) {
                    return 0;
                }
                *next_byte = Some(now + every);
                1
            }
        }
    }
}

impl Faults {
    /// How often trickling connections have to be looked at; `None` if nothing trickles.
    pub(super) fn tick(&self) -> Option<Duration> {
        [self.tls, self.upgrade, self.frames, self.rest]
            .into_iter()
            .filter_map(|pace| match pace {
                Pace::Trickle(every) => Some(every),
                Pace::Normal | Pace::Mute => None,
            })
            .min()
    }
}
