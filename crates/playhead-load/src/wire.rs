//! The bytes of requests and answers.
//!
//! A heartbeat is written into a buffer that is used again, from parts that were made before the clock started; no
//! number passes through a formatter. An answer is read in place.

use std::io::Write;
use std::ops::Range;

/// The path of heartbeats.
pub(crate) const PROGRESS: &str = "/api/v1/stream/progress";

/// More header lines than any answer of ours has.
const HEADERS_MAX: usize = 32;

/// What a streamer must know of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// When to try again, in seconds.
    pub(crate) retry_after_s: Option<u32>,
    /// From one beat to the next, in seconds, as the server wishes it.
    pub(crate) interval_s: Option<u32>,
    /// The connection ends behind it.
    pub(crate) closes: bool,
}

/// What stands at the beginning of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// Not yet an answer.
    Partial,
    /// Never an answer.
    Broken,
    /// An answer, the place of its body, and how long it is.
    Whole { answer: Answer, body: Range<usize>, length: usize },
}

/// Reads an answer.
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Broken,
    };
    let mut answer = Answer { status: response.code.unwrap_or_default(), ..Answer::default() };
    let mut length = None;
    for header in response.headers.iter() {
        // The length of a name tells most of them apart, and nearly all are of no interest here.
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => {
                let Some(value) = number(header.value) else { return Parsed::Broken };
                length = usize::try_from(value).ok();
            }
            11 if header.name.eq_ignore_ascii_case("retry-after") => {
                // A date instead of seconds: soon.
                answer.retry_after_s = Some(number(header.value).unwrap_or(1));
            }
            17 if header.name.eq_ignore_ascii_case("playhead-interval") => answer.interval_s = number(header.value),
            10 if header.name.eq_ignore_ascii_case("connection") => {
                answer.closes |= header.value.eq_ignore_ascii_case(b"close");
            }
            // Another service's; it counts by its status, and what follows is not read.
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => answer.closes = true,
            _ => {}
        }
    }
    let length = match (answer.status, length) {
        (204 | 304 | 100..200, _) => 0,
        (_, Some(length)) => length,
        (_, None) => {
            answer.closes = true;
            0
        }
    };
    match head.checked_add(length) {
        Some(end) if end <= bytes.len() => Parsed::Whole { answer, body: head..end, length: end },
        Some(_) => Parsed::Partial,
        None => Parsed::Broken,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// Writes a GET.
pub(crate) fn get(buffer: &mut Vec<u8>, host: &str, path: &str, token: &str) {
    write!(buffer, "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n")
        .expect("a vector takes all");
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beat {
    pub(crate) movie: i64,
    pub(crate) seconds: u32,
    pub(crate) sixty_fourths: u32,
    pub(crate) duration: u32,
}

/// The parts of a heartbeat over HTTP/1.1 that never change.
#[derive(Debug)]
pub(crate) struct BeatParts {
    before_token: Vec<u8>,
    after_token: Vec<u8>,
    body: Vec<u8>,
}

impl BeatParts {
    pub(crate) fn new(host: &str) -> Self {
        Self {
            before_token: format!("POST {PROGRESS} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer ").into_bytes(),
            after_token: b"\r\nContent-Type: application/json\r\nContent-Length: ".to_vec(),
            body: Vec::with_capacity(128),
        }
    }

    /// Writes a heartbeat behind what is in the buffer.
    pub(crate) fn write(&mut self, buffer: &mut Vec<u8>, token: &[u8], beat: Beat) {
        self.body.clear();
        write_body(&mut self.body, beat);
        buffer.extend_from_slice(&self.before_token);
        buffer.extend_from_slice(token);
        buffer.extend_from_slice(&self.after_token);
        write_number(buffer, self.body.len() as u64);
        buffer.extend_from_slice(b"\r\n\r\n");
        buffer.extend_from_slice(&self.body);
    }
}

/// Writes a heartbeat's JSON.
pub(crate) fn write_body(body: &mut Vec<u8>, beat: Beat) {
    body.extend_from_slice(b"{\"movie_id\":");
    if beat.movie < 0 {
        body.push(b'-');
    }
    write_number(body, beat.movie.unsigned_abs());
    body.extend_from_slice(b",\"position_seconds\":");
    write_number(body, u64::from(beat.seconds));
    // A 64th is 0.015625: six decimals hold each exactly.
    let mut millionths = beat.sixty_fourths * 15_625;
    let mut decimals = *b".000000";
    for digit in decimals[1..].iter_mut().rev() {
        *digit += u8::try_from(millionths % 10).expect("a digit");
        millionths /= 10;
    }
    body.extend_from_slice(&decimals);
    body.extend_from_slice(b",\"duration_seconds\":");
    write_number(body, u64::from(beat.duration));
    body.push(b'}');
}

fn write_number(buffer: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buffer.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_json_with_the_exact_position() {
        for (movie, seconds, sixty_fourths) in [(0, 1, 0), (-5, 1_234, 63), (i64::MIN, 9_999, 1), (i64::MAX, 7, 32)] {
            let mut bytes = b"rest".to_vec();
            let beat = Beat { movie, seconds, sixty_fourths, duration: 7_200 };
            BeatParts::new("h:1").write(&mut bytes, b"T", beat);
            let text = String::from_utf8(bytes).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("restPOST /api/v1/stream/progress HTTP/1.1\r\nHost: h:1\r\n"), "{head}");
            assert!(head.contains("\r\nAuthorization: Bearer T\r\n"), "{head}");
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(json["movie_id"], movie);
            assert_eq!(json["position_seconds"], f64::from(seconds) + f64::from(sixty_fourths) / 64.0);
            assert_eq!(json["duration_seconds"], 7_200);
        }
    }

    #[test]
    fn answers_are_read_in_pieces() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nplayhead-interval: 30\r\n\
            Connection: close\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 204";
        let whole = text.len() - "HTTP/1.1 204".len();
        for length in 0..whole {
            assert_eq!(parse(&text[..length]), Parsed::Partial, "of {length}");
        }
        let answer = Answer { status: 503, retry_after_s: Some(2), interval_s: Some(30), closes: true };
        assert_eq!(parse(text), Parsed::Whole { answer, body: whole - 3..whole, length: whole });
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n\r\n"), {
            let answer = Answer { status: 204, ..Answer::default() };
            Parsed::Whole { answer, body: 27..27, length: 27 }
        });
        for broken in ["SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"] {
            assert_eq!(parse(broken.as_bytes()), Parsed::Broken, "{broken}");
        }
        for endless in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"] {
            let Parsed::Whole { answer, .. } = parse(endless.as_bytes()) else { panic!("{endless}") };
            assert!(answer.closes, "{endless}");
        }
    }
}
