//! Words of others, made fit for a log line: capped, and without anything that could move a cursor or start a line.

/// Most characters of a refused message that go into a log line.
const SAMPLE_CHARS: usize = 160;

/// The beginning of a message for one log line: control and invisible characters and bytes that are not UTF-8 are
/// escaped, at most 160 characters are shown, and of a longer message its length is told.
pub fn sample(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(SAMPLE_CHARS + 24);
    let mut room = Room { left: SAMPLE_CHARS };
    for chunk in bytes.utf8_chunks() {
        let shown = chunk.valid().chars().all(|c| match c {
            // these two are harmless in a line, and JSON is unreadable with them escaped
            '"' | '\'' | '\\' => room.push(&mut out, std::iter::once(c)),
            _ => room.push(&mut out, c.escape_debug()),
        }) && chunk
            .invalid()
            .iter()
            .all(|byte| room.push(&mut out, std::ascii::escape_default(*byte).map(char::from)));
        if !shown {
            out.push_str(&format!("… ({} bytes)", bytes.len()));
            break;
        }
    }
    out
}

/// Another's words as part of a sentence of ours: as [`sample`], with quotes escaped too and a cap of the caller's.
pub(in crate::wire) fn escaped(words: &str, chars_max: usize) -> String {
    let mut out = String::new();
    let mut room = Room { left: chars_max };
    if !words.chars().all(|c| room.push(&mut out, c.escape_debug())) {
        out.push('…');
    }
    out
}

/// Counts the characters that still fit.
struct Room {
    left: usize,
}

impl Room {
    /// Adds a character's escaped form if it fits whole.
    fn push(&mut self, out: &mut String, form: impl Iterator<Item = char> + Clone) -> bool {
        let width = form.clone().count();
        if width > self.left {
            return false;
        }
        self.left -= width;
        out.extend(form);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_one_short_harmless_line() {
        assert_eq!(sample(br#"{"e":"x"}"#), r#"{"e":"x"}"#);
        assert_eq!(sample(b"a\r\nb\x1b[2J\0\x7f"), r"a\r\nb\u{1b}[2J\0\u{7f}");
        assert_eq!(sample(b"\xff\xfe{"), r"\xff\xfe{");
        assert_eq!(sample("币\u{202e}安".as_bytes()), r"币\u{202e}安");
        let long = sample("x".repeat(100_000).as_bytes());
        assert_eq!(long, format!("{}… (100000 bytes)", "x".repeat(160)));
        assert!(sample(&[0; 1000]).chars().count() < 200);
        assert_eq!(sample(b""), "");
    }

    #[test]
    fn words_of_others_are_escaped_and_capped() {
        assert_eq!(escaped("say \"x\"\n", 120), r#"say \"x\"\n"#);
        assert_eq!(escaped(&"y".repeat(500), 120), format!("{}…", "y".repeat(120)));
    }
}
