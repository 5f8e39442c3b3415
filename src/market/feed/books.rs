//! What became of connections and streams since the start: figures for reports. Nothing here is decided upon.

use super::*;

/// What became of the successors of one purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Successions {
    /// Successors that began to connect. One that is neither below is under way, was needed at once because the old
    /// connection ended, or is not wanted any more.
    pub begun: u64,
    /// They proved themselves and took over.
    pub succeeded: u64,
    /// They could not take over, and the old connection stayed.
    pub failed: u64,
}

/// The books of the whole feed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Books {
    successions: [Successions; Purpose::ALL.len()],
}

impl Books {
    /// What became of the successors of one purpose.
    pub fn successions(&self, purpose: Purpose) -> Successions {
        self.successions[purpose as usize]
    }

    pub(super) fn of(&mut self, purpose: Purpose) -> &mut Successions {
        &mut self.successions[purpose as usize]
    }
}

impl Feed {
    /// The books of the whole feed.
    pub fn books(&self) -> &Books {
        &self.books
    }

    /// The books of both legs over all connections, those included whose streams are not wanted any more; `None` without
    /// a second leg.
    pub fn legs(&self) -> Option<[LegBooks; 2]> {
        let mut sums = [LegBooks::default(); 2];
        for group in &self.groups {
            for (sum, books) in sums.iter_mut().zip(&group.books) {
                sum.add(books);
            }
        }
        (self.legs > 1).then_some(sums)
    }

    /// How often each step of the ladder brought a stream back, in the order of [`Rung::ALL`]; streams that are not
    /// wanted any more included, so that it only grows.
    pub fn healed_by_step(&self) -> [u64; Rung::ALL.len()] {
        let mut sums = [0; Rung::ALL.len()];
        for stream in &self.streams {
            for (sum, count) in sums.iter_mut().zip(stream.healed) {
                *sum += count;
            }
        }
        sums
    }

    /// When a connection is to be replaced because of its age; `None` if never, or if a successor is under way.
    pub fn rotates_at(&self, connection: &Connection) -> Option<Instant> {
        let at = self.rotation_due(connection.slot);
        (connection.role == Role::Current && at != Instant::FAR).then_some(at)
    }

    /// Attempts to connect begun under a connection's name and leg, on whichever row.
    pub fn attempts_begun(&self, connection: &Connection) -> u64 {
        let seat = match connection.role {
            Role::Current | Role::Successor(_) | Role::Retiring => {
                self.groups[connection.group].seats.get(connection.leg)
            }
            Role::Side | Role::Vacant => None,
        };
        seat.map_or_else(|| connection.session.epoch(), |seat| seat.epoch)
    }
}

impl LegBooks {
    /// Mean lead over the other leg, over the messages that came twice and were first here; `None` before any.
    pub fn lead_mean(&self) -> Option<Span> {
        self.lead_sum.as_ns().checked_div(self.leads).map(Span::from_ns)
    }

    fn add(&mut self, other: &Self) {
        self.first += other.first;
        self.late += other.late;
        self.lost += other.lost;
        self.leads += other.leads;
        self.lead_sum = Span::from_ns(self.lead_sum.as_ns().saturating_add(other.lead_sum.as_ns()));
        self.lead_max = self.lead_max.max(other.lead_max);
    }
}
