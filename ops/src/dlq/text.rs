//! What senders wrote, fit for a terminal: nothing of it may steer one.

use std::fmt::Write as _;

/// How many bytes a line of a dump has.
const DUMP_LINE_BYTES: usize = 16;

/// The first characters of a text on one line, with what cannot be printed replaced.
pub fn cut(bytes: &[u8], chars_max: usize) -> String {
    // A character has at most four bytes.
    let beginning = &bytes[..bytes.len().min((chars_max + 1) * 4)];
    let text = String::from_utf8_lossy(beginning);
    let mut cut: String = text
        .chars()
        .take(chars_max)
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect();
    if text.chars().nth(chars_max).is_some() {
        cut.pop();
        cut.push('…');
    }
    cut
}

/// The text, when it is one that can be printed as it is.
pub fn printable(bytes: &[u8]) -> Option<&str> {
    str::from_utf8(bytes).ok().filter(|text| {
        !text
            .chars()
            .any(|c| c.is_control() && !"\n\r\t".contains(c))
    })
}

/// The text, or a dump of the bytes when it is none.
pub fn whole(bytes: &[u8]) -> String {
    printable(bytes).map_or_else(|| dump(bytes), str::to_owned)
}

/// Offsets, hexadecimal digits and what of it is ASCII.
fn dump(bytes: &[u8]) -> String {
    let mut dump = String::new();
    for (line, bytes) in bytes.chunks(DUMP_LINE_BYTES).enumerate() {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let letters: String = bytes
            .iter()
            .map(|byte| match byte {
                b' '..=b'~' => char::from(*byte),
                _ => '.',
            })
            .collect();
        let offset = line * DUMP_LINE_BYTES;
        // Writing into a string cannot fail.
        let _ = writeln!(dump, "{offset:08x}  {:<47}  {letters}", digits.join(" "));
    }
    dump
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_text_is_one_line_that_steers_no_terminal() {
        assert_eq!(cut(b"short", 5), "short");
        assert_eq!(cut(b"longer", 5), "long…");
        assert_eq!(cut("äöüß".as_bytes(), 3), "äö…");
        assert_eq!(cut(b"a\n\x1b[2Jb", 20), "a \u{fffd}[2Jb");
        assert_eq!(cut(b"", 5), "");
        assert_eq!(cut(&[0xff, b'a'], 5), "\u{fffd}a");
        assert_eq!(cut("🦀".repeat(1_000).as_bytes(), 2), "🦀…");
    }

    #[test]
    fn text_is_shown_as_it_is_and_anything_else_as_a_dump() {
        assert_eq!(whole("{\n\t\"ü\": 1}\r\n".as_bytes()), "{\n\t\"ü\": 1}\r\n");
        assert_eq!(whole(b""), "");
        assert_eq!(
            whole(b"\xff\x00Meed in hex dumps"),
            "00000000  ff 00 4d 65 65 64 20 69 6e 20 68 65 78 20 64 75  ..Meed in hex du\n\
             00000010  6d 70 73                                         mps\n"
        );
        assert!(whole(b"\x1b[2J").starts_with("00000000  1b 5b 32 4a  "));
    }
}
