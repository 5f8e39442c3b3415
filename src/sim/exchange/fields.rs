//! A light reader of JSON text by its outer keys, keeping every value as it was written: for sending recorded text on,
//! and for faults that change a frame without touching what is in it.

/// The outer fields of a JSON object, values as written. `None` if the text is not an object whose keys are plain.
pub fn fields(text: &str) -> Option<Vec<(&str, &str)>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    split(inner)?
        .into_iter()
        .map(|part| {
            let rest = part.trim().strip_prefix('"')?;
            let (key, value) = rest.split_at(rest.find('"')?);
            Some((key, value[1..].trim_start().strip_prefix(':')?.trim()))
        })
        .collect()
}

/// The elements of a JSON array, as written.
pub fn elements(text: &str) -> Option<Vec<&str>> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    Some(split(inner)?.into_iter().map(str::trim).collect())
}

/// The value of one outer key.
pub fn field<'a>(fields: &[(&'a str, &'a str)], key: &str) -> Option<&'a str> {
    fields.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
}

/// A string value without its quotes; strings with escapes are none of ours.
pub fn string(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"').filter(|inner| !inner.contains(['"', '\\']))
}

/// An object of these fields.
pub fn object(fields: &[(String, String)]) -> String {
    let mut out = String::from("{");
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push('"');
        out.push_str(key);
        out.push_str("\":");
        out.push_str(value);
    }
    out.push('}');
    out
}

/// Cuts at the commas that are outside of strings, objects and arrays.
fn split(inner: &str) -> Option<Vec<&str>> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(&inner[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    parts.push(&inner[start..]);
    (depth == 0 && !quoted).then_some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_as_they_were_written() {
        let text = r#"{"stream":"a@b","data":{"e":"x, \"y}","k":{"t":1, "T":2}},"n":[1, {"a":2}]}"#;
        let all = fields(text).unwrap();
        assert_eq!(field(&all, "data"), Some(r#"{"e":"x, \"y}","k":{"t":1, "T":2}}"#));
        assert_eq!(string(field(&all, "stream").unwrap()), Some("a@b"));
        assert_eq!(elements(field(&all, "n").unwrap()).unwrap(), ["1", r#"{"a":2}"#]);
        assert_eq!(fields("{}"), Some(vec![]));
        for broken in ["", "[1]", "{", r#"{"a":1}}"#, r#"{"a":"1}"#, r#"{"a"}"#, "{a:1}"] {
            assert_eq!(fields(broken), None, "{broken}");
        }
    }
}
