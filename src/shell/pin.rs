//! Keeping the loop on one core.
//!
//! Threads inherit the affinity of the thread that starts them, so the loop pins itself only after everything else was
//! started, and never starts a thread itself; lanes start their own threads for the same reason.

/// Whether the core exists and this process may use it.
#[must_use]
pub fn core_exists(core: usize) -> bool {
    core_affinity::get_core_ids().is_some_and(|cores| cores.iter().any(|known| known.id == core))
}

/// Keeps the calling thread on `core` from now on.
///
/// # Errors
/// In words, if the core does not exist or the system refuses.
pub fn pin_to(core: usize) -> Result<(), String> {
    if !core_exists(core) {
        return Err(format!("core {core} does not exist, or this process may not use it"));
    }
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(format!("the system refused to pin the loop to core {core}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_that_do_not_exist_are_refused() {
        assert!(!core_exists(100_000));
        assert!(pin_to(100_000).unwrap_err().contains("100000"));
    }

    #[test]
    fn a_core_that_exists_can_be_had() {
        let Some(core) = core_affinity::get_core_ids().and_then(|cores| cores.first().copied()) else { return };
        // On a thread of its own: the affinity stays with the thread.
        std::thread::spawn(move || pin_to(core.id).unwrap()).join().unwrap();
    }
}
