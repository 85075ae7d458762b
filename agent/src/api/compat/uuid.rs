//! Names as UUIDs, which some dialects hand out in place of names: made of the name alone (RFC 9562, version 5), so they outlive
//! restarts and are the same on every agent.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The RFC's namespace of names in the domain name system; names live under `.adit` there.
const DNS: [u8; 16] = [0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8];

/// A model's: Python's `uuid.uuid5(uuid.NAMESPACE_DNS, "MODEL.adit")`.
pub(super) fn of_model(model: &str) -> String {
    of(&format!("{model}.adit"))
}

/// A label's, which is another one with every model.
pub(super) fn of_label(model: &str, label: &str) -> String {
    of(&format!("{label}.{model}.adit"))
}

fn of(name: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[&DNS, name.as_bytes()].concat());
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(hash.as_ref()) {
        *byte = *hashed;
    }
    bytes[6] = bytes[6] & 0x0f | 0x50;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_standard() {
        // Python's own example of uuid5.
        assert_eq!(of("python.org"), "886313e1-3b8a-5372-9b90-0c9aee199e5d");
        assert_ne!(of_model("a"), of_model("b"));
        assert_ne!(of_label("a", "cup"), of_label("b", "cup"));
    }
}
