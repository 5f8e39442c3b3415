//! The words of the command line, a file each.

pub mod exchange;
