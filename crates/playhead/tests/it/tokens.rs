//! Tokens that do not count, over real sockets and on every route: each is 401, nothing is stored or forgotten, and the
//! next good one is served. What is signed here is signed with the server's own secret, unless that is the case.

use crate::client::{Answer, BATCH, Client, PROGRESS, beat, dev_secret, token};
use crate::process::Server;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const USER: i64 = 7;
const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
/// In the year 2096.
const LATER: u64 = 4_000_000_000;
const LATE: &str = r#"{"sent_at_ms": 5, "items": [{"movie_id": 42, "position_seconds": 9, "event_time_ms": 5}]}"#;

fn sign_with(hash: hmac::Algorithm, secret: &[u8], header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hash, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// A server with one stored row of [`USER`].
struct Scene {
    directory: TempDir,
    server: Server,
    secret: Vec<u8>,
    stored: String,
}

impl Scene {
    fn new(flags: &[&str], good: impl Fn(&[u8]) -> String) -> Self {
        let directory = TempDir::new().unwrap();
        let server = Server::in_memory(&directory, flags);
        let secret = dev_secret(&directory);
        let good = good(&secret);
        let mut client = server.connect();
        assert_eq!(client.beat(&good, beat(42, 10)).status, 204);
        let stored = client.get(&format!("{PROGRESS}?state=all"), Some(&good)).body;
        Self { directory, server, secret, stored }
    }

    fn sign(&self, header: &str, claims: &str) -> String {
        sign_with(hmac::HMAC_SHA256, &self.secret, header, claims)
    }

    fn with_claims(&self, claims: &str) -> String {
        self.sign(HS256, claims)
    }

    /// A request of each route with these headers.
    fn answers(&self, client: &mut Client, authorization: &[&str]) -> Vec<(String, Answer)> {
        let mut headers: Vec<_> = authorization.iter().map(|value| ("Authorization", *value)).collect();
        headers.push(("Content-Type", "application/json"));
        let body = beat(43, 1);
        let title = format!("{PROGRESS}/42");
        let calls = [
            ("POST", PROGRESS, Some(body.as_bytes())),
            ("POST", BATCH, Some(LATE.as_bytes())),
            ("GET", PROGRESS, None),
            ("GET", &title, None),
            ("DELETE", &title, None),
            ("DELETE", PROGRESS, None),
        ];
        let answer = |(method, path, body)| (format!("{method} {path}"), client.request(method, path, &headers, body));
        calls.map(answer).into()
    }

    fn check_refused_headers(&self, what: &str, authorization: &[&str]) {
        let begun = Instant::now();
        let mut client = self.server.connect();
        for (call, answer) in self.answers(&mut client, authorization) {
            assert_eq!((answer.status, answer.slug().as_str()), (401, "unauthorized"), "{what}, {call}: {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}, {call}");
        }
        assert!(begun.elapsed() < Duration::from_secs(6), "{what}: {:?}", begun.elapsed());
    }

    fn check_refused(&self, what: &str, token: &str) {
        self.check_refused_headers(what, &[&format!("Bearer {token}")]);
    }

    fn check_taken(&self, what: &str, token: &str) {
        let answer = self.server.connect().get(&format!("{PROGRESS}?state=all"), Some(token));
        assert_eq!((answer.status, answer.body.as_str()), (200, self.stored.as_str()), "{what}");
    }

    /// Nothing was stored or forgotten, no token is in the log, and the server has not panicked.
    fn end(self, good: &str, secrets: &[&str]) {
        self.check_taken("the good token", good);
        let log = self.server.talk();
        for secret in [&[good, "Bearer", "panicked"], secrets].concat() {
            assert!(!log.contains(secret), "{secret:?} is in the log: {log}");
        }
    }
}

fn plain(secret: &[u8]) -> String {
    sign_with(hmac::HMAC_SHA256, secret, HS256, &format!(r#"{{"sub":"{USER}","exp":{LATER}}}"#))
}

#[test]
fn a_header_that_is_not_one_bearer_token_is_refused() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    let bearer = format!("Bearer {good}");
    let cases: [(&str, &[&str]); 11] = [
        ("no header", &[]),
        ("an empty one", &[""]),
        ("a scheme alone", &["Bearer"]),
        ("a scheme and a space", &["Bearer "]),
        ("Basic", &["Basic dXNlcjpwYXNzd29yZA=="]),
        ("Digest", &["Digest username=\"7\""]),
        ("no scheme", &[&good]),
        ("two headers", &[&bearer, &bearer]),
        ("two headers, one of them empty", &[&bearer, ""]),
        ("two tokens in one", &[&format!("{bearer}, {bearer}")]),
        ("two spaces", &[&format!("Bearer  {good}")]),
    ];
    for (what, headers) in cases {
        scene.check_refused_headers(what, headers);
    }
    // A token elsewhere is none.
    let mut client = scene.server.connect();
    for path in [format!("{PROGRESS}?access_token={good}"), format!("{PROGRESS}?token={good}")] {
        assert_eq!(client.get(&path, None).status, 401);
    }
    let cookie = format!("access_token={good}");
    let form = format!("access_token={good}");
    assert_eq!(client.request("GET", PROGRESS, &[("Cookie", &cookie), ("X-Authorization", &bearer)], None).status, 401);
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(client.request("POST", PROGRESS, &headers, Some(form.as_bytes())).status, 401);
    // The scheme's case is no matter.
    let answer = client.request("GET", PROGRESS, &[("authorization", &format!("bEARER {good}"))], None);
    assert_eq!(answer.status, 200);
    scene.end(&good, &[&good[good.len() - 20..]]);
}

#[test]
fn a_token_that_is_no_jwt_is_refused() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    let parts: Vec<_> = good.split('.').collect();
    let (header, claims, signature) = (parts[0], parts[1], parts[2]);
    let flipped = |text: &str| {
        // The first character: of the last one, some bits mean nothing.
        let first = if text.starts_with('A') { "B" } else { "A" };
        format!("{first}{}", &text[1..])
    };
    let raw = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let cases = [
        ("one part", header.to_owned()),
        ("two parts", format!("{header}.{claims}")),
        ("two parts and a dot", format!("{header}.{claims}.")),
        ("four parts", format!("{good}.{signature}")),
        ("five parts", format!("{good}.{signature}.{signature}")),
        ("dots", "..".to_owned()),
        ("no header", format!(".{claims}.{signature}")),
        ("no claims", format!("{header}..{signature}")),
        ("a header that is not base64", format!("!!.{claims}.{signature}")),
        ("claims that are not base64", format!("{header}.!!.{signature}")),
        ("a signature that is not base64", format!("{header}.{claims}.!!")),
        ("a padded signature", format!("{header}.{claims}.{}", URL_SAFE.encode(&raw))),
        ("a signature one byte short", format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(&raw[1..]))),
        (
            "a signature one byte long",
            format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([&raw[..], &[0]].concat())),
        ),
        ("another signature", format!("{header}.{claims}.{}", flipped(signature))),
        ("another header", format!("{}.{claims}.{signature}", flipped(header))),
        ("other claims", format!("{header}.{}.{signature}", flipped(claims))),
        ("the claims of another user", {
            let theirs = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"8","exp":{LATER}}}"#));
            format!("{header}.{theirs}.{signature}")
        }),
        ("the other alphabet", format!("{header}.{claims}.{}", STANDARD.encode([0xfb_u8; 32]))),
        ("a space behind", format!("{good} x")),
        ("a header that is no JSON", scene.sign("{", "{}")),
        ("a header that is a list", scene.sign(r#"["HS256"]"#, "{}")),
        ("claims that are no JSON", scene.with_claims("{")),
        ("claims that are a list", scene.with_claims(r#"["7", 4000000000]"#)),
        ("claims that are no UTF-8", {
            let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(b"{\"sub\":\"\xff\"}"));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &scene.secret), message.as_bytes());
            format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
        }),
        (
            "claims nested deep",
            scene.with_claims(&format!(
                r#"{{"sub":"7","exp":{LATER},"x":{}1{}}}"#,
                "[".repeat(2_000),
                "]".repeat(2_000)
            )),
        ),
    ];
    for (what, token) in cases {
        scene.check_refused(what, &token);
    }
    scene.end(&good, &[claims, signature]);
}

#[test]
fn only_hs256_under_the_servers_own_secret_counts() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    let claims = format!(r#"{{"sub":"{USER}","exp":{LATER}}}"#);
    for algorithm in
        ["none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA", "HS256 "]
    {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        scene.check_refused(&format!("{algorithm:?}, signed as HS256"), &scene.sign(&header, &claims));
        let (head, body) = (URL_SAFE_NO_PAD.encode(&header), URL_SAFE_NO_PAD.encode(&claims));
        scene.check_refused(&format!("{algorithm:?}, unsigned"), &format!("{head}.{body}."));
    }
    for (hash, algorithm) in [(hmac::HMAC_SHA384, "HS384"), (hmac::HMAC_SHA512, "HS512"), (hmac::HMAC_SHA512, "HS256")]
    {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        scene.check_refused(algorithm, &sign_with(hash, &scene.secret, &header, &claims));
    }
    for (what, header) in [
        ("no algorithm", r#"{"typ":"JWT"}"#),
        ("a null algorithm", r#"{"alg":null}"#),
        ("a list of algorithms", r#"{"alg":["HS256"]}"#),
        ("two algorithms", r#"{"alg":"none","alg":"HS256"}"#),
        ("an unknown critical extension", r#"{"alg":"HS256","crit":["exp"],"exp":1}"#),
        ("an empty list of critical extensions", r#"{"alg":"HS256","crit":[]}"#),
        ("unencoded claims", r#"{"alg":"HS256","crit":["b64"],"b64":false}"#),
    ] {
        scene.check_refused(what, &scene.sign(header, &claims));
    }
    let secrets: [(&str, &[u8]); 4] = [
        ("another secret", b"another secret of thirty-two bytes"),
        ("an empty secret", b""),
        ("a secret cut short", &scene.secret[..32]),
        ("a secret with its newline", &[&scene.secret[..], b"\n"].concat()),
    ];
    for (what, secret) in secrets {
        scene.check_refused(what, &sign_with(hmac::HMAC_SHA256, secret, HS256, &claims));
    }
    // What else a header holds is no matter.
    scene.check_taken("a key's name", &scene.sign(r#"{"alg":"HS256","kid":"2026-11","x":1}"#, &claims));
    scene.end(&good, &[]);
}

#[test]
fn a_key_that_a_token_brings_or_points_at_is_neither_used_nor_fetched() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    let own = b"a secret that the attacker chose!";
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    nobody.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys.json", nobody.local_addr().unwrap());
    let key = format!(r#"{{"kty":"oct","kid":"x","alg":"HS256","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(own));
    let claims = format!(r#"{{"sub":"{USER}","exp":{LATER},"iss":"{url}"}}"#);
    for (what, extra) in [
        ("jwk", format!(r#""jwk":{key}"#)),
        ("jku", format!(r#""jku":"{url}""#)),
        ("x5u", format!(r#""x5u":"{url}""#)),
        ("x5c", format!(r#""x5c":["{}"]"#, STANDARD.encode(own))),
        ("kid as a path", r#""kid":"/dev/null""#.to_owned()),
        ("kid as a query", r#""kid":"x' UNION SELECT 'secret""#.to_owned()),
    ] {
        let header = format!(r#"{{"alg":"HS256",{extra}}}"#);
        scene.check_refused(what, &sign_with(hmac::HMAC_SHA256, own, &header, &claims));
        scene.check_refused(&format!("{what}, empty secret"), &sign_with(hmac::HMAC_SHA256, b"", &header, &claims));
    }
    // As many names of keys as one likes cost a signature each, and nothing is kept of them.
    let mut client = scene.server.connect();
    for number in 0..10_000 {
        let header = format!(r#"{{"alg":"HS256","kid":"{number:x}"}}"#);
        let answer = client.get(PROGRESS, Some(&sign_with(hmac::HMAC_SHA256, own, &header, &claims)));
        assert_eq!(answer.status, 401);
    }
    assert!(matches!(nobody.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock), "a token's URL was asked");
    scene.end(&good, &[&url]);
}

#[test]
fn times_that_do_not_hold_are_refused() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    let now = std::fs::metadata(scene.directory.path().join("dev-secret")).unwrap().modified().unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let with = |times: String| scene.with_claims(&format!(r#"{{"sub":"{USER}"{times}}}"#));
    for (what, times) in [
        ("no expiry", String::new()),
        ("expired long ago", r#","exp":1000"#.to_owned()),
        ("expired a minute ago", format!(r#","exp":{}"#, now - 60)),
        ("an expiry as text", format!(r#","exp":"{LATER}""#)),
        ("a null expiry", r#","exp":null"#.to_owned()),
        ("a true expiry", r#","exp":true"#.to_owned()),
        ("a list of expiries", format!(r#","exp":[{LATER}]"#)),
        ("an expiry below zero", r#","exp":-1"#.to_owned()),
        ("an expiry of zero", r#","exp":0"#.to_owned()),
        ("an expiry beyond all numbers", r#","exp":1e300"#.to_owned()),
        ("two expiries", format!(r#","exp":{LATER},"exp":{LATER}"#)),
        ("not valid yet", format!(r#","exp":{LATER},"nbf":{}"#, LATER - 1)),
        ("not valid for ten minutes", format!(r#","exp":{LATER},"nbf":{}"#, now + 600)),
        ("not valid before a text", format!(r#","exp":{LATER},"nbf":"soon""#)),
    ] {
        scene.check_refused(what, &with(times));
    }
    // Clocks may differ by half a minute.
    for (what, times) in [
        ("expired just now", format!(r#","exp":{}"#, now + 5)),
        ("valid just now", format!(r#","exp":{LATER},"nbf":{now}"#)),
        ("a fraction of a second", format!(r#","exp":{LATER}.5"#)),
        ("issued in the future", format!(r#","exp":{LATER},"iat":{}"#, LATER - 1)),
    ] {
        scene.check_taken(what, &with(times));
    }
    scene.end(&good, &[]);
}

#[test]
fn a_token_that_was_taken_is_refused_once_it_has_expired() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    let file = scene.directory.path().join("now");
    std::fs::write(&file, "").unwrap();
    let now = std::fs::metadata(&file).unwrap().modified().unwrap();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // So that the half minute by which clocks may differ ends soon.
    let short = scene.with_claims(&format!(r#"{{"sub":"{USER}","exp":{}}}"#, now - 25));
    let mut client = scene.server.connect();
    let mut taken = 0;
    crate::process::eventually("the token has expired", || {
        let status = client.beat(&short, beat(42, 10)).status;
        taken += u32::from(status == 204);
        assert!(status == 204 || status == 401, "{status}");
        status == 401
    });
    assert!(taken > 0, "it never counted");
    assert_eq!(client.beat(&good, beat(42, 10)).status, 204);
}

#[test]
fn a_user_claim_that_is_no_canonical_id_is_refused() {
    let scene = Scene::new(&[], plain);
    let good = plain(&scene.secret);
    for sub in [
        "null",
        "true",
        "[7]",
        "{}",
        "7.0",
        "7.5",
        "1e3",
        "9223372036854775808",
        "-9223372036854775809",
        r#""""#,
        r#"" 7""#,
        r#""7 ""#,
        r#""+7""#,
        r#""07""#,
        r#""-0""#,
        r#""7.0""#,
        r#""0x7""#,
        r#""alice""#,
        r#""४२""#,
        r#""9223372036854775808""#,
    ] {
        scene.check_refused(sub, &scene.with_claims(&format!(r#"{{"sub":{sub},"exp":{LATER}}}"#)));
    }
    scene.check_refused("no user", &scene.with_claims(&format!(r#"{{"exp":{LATER}}}"#)));
    let twice = format!(r#"{{"sub":"{USER}","sub":"8","exp":{LATER}}}"#);
    scene.check_refused("two users", &scene.with_claims(&twice));
    let same = format!(r#"{{"sub":"{USER}","sub":"{USER}","exp":{LATER}}}"#);
    scene.check_refused("the same user twice", &scene.with_claims(&same));
    scene.check_refused("another claim", &scene.with_claims(&format!(r#"{{"user_id":"{USER}","exp":{LATER}}}"#)));
    // Both spellings of an id are one user.
    scene.check_taken("a number", &scene.with_claims(&format!(r#"{{"sub":{USER},"exp":{LATER}}}"#)));
    for edge in [i64::MIN, -1, 0, i64::MAX] {
        let edge = scene.with_claims(&format!(r#"{{"sub":"{edge}","exp":{LATER}}}"#));
        assert_eq!(scene.server.connect().get(PROGRESS, Some(&edge)).status, 200);
    }
    scene.end(&good, &[]);
}

#[test]
fn another_claim_may_hold_the_user_and_only_once() {
    let claims = |more: &str| format!(r#"{{"sub":"someone","exp":{LATER}{more}}}"#);
    let whole = claims(&format!(r#","profile":"{USER}""#));
    let signed = |secret: &[u8]| sign_with(hmac::HMAC_SHA256, secret, HS256, &whole);
    let scene = Scene::new(&["--user-claim", "profile"], signed);
    let good = signed(&scene.secret);
    scene.check_refused("no such claim", &plain(&scene.secret));
    scene.check_refused("a name", &scene.with_claims(&claims(r#","profile":"alice""#)));
    for second in ["8", "7"] {
        let twice = claims(&format!(r#","profile":"{USER}","profile":"{second}""#));
        scene.check_refused("twice", &scene.with_claims(&twice));
    }
    scene.end(&good, &[]);
}

#[test]
fn issuer_and_audience_are_required_where_they_are_configured() {
    let claims = |more: &str| format!(r#"{{"sub":"{USER}","exp":{LATER}{more}}}"#);
    let whole = claims(r#","iss":"https://id.example","aud":"playhead""#);
    let signed = |secret: &[u8]| sign_with(hmac::HMAC_SHA256, secret, HS256, &whole);
    let flags = ["--jwt-issuer", "https://id.example", "--jwt-audience", "playhead"];
    let scene = Scene::new(&flags, signed);
    for (what, more) in [
        ("neither", ""),
        ("no audience", r#","iss":"https://id.example""#),
        ("no issuer", r#","aud":"playhead""#),
        ("another issuer", r#","iss":"https://evil.example","aud":"playhead""#),
        ("an issuer with a slash", r#","iss":"https://id.example/","aud":"playhead""#),
        ("an issuer in capitals", r#","iss":"HTTPS://ID.EXAMPLE","aud":"playhead""#),
        ("an issuer that is a number", r#","iss":7,"aud":"playhead""#),
        ("a null issuer", r#","iss":null,"aud":"playhead""#),
        ("another audience", r#","iss":"https://id.example","aud":"playhead2""#),
        ("other audiences", r#","iss":"https://id.example","aud":["a","b"]"#),
        ("no audience in a list", r#","iss":"https://id.example","aud":[]"#),
        ("an audience that is a number", r#","iss":"https://id.example","aud":7"#),
        ("an audience that is an object", r#","iss":"https://id.example","aud":{"playhead":true}"#),
        ("two issuers", r#","iss":"https://evil.example","iss":"https://id.example","aud":"playhead""#),
        ("two audiences", r#","iss":"https://id.example","aud":"other","aud":"playhead""#),
    ] {
        scene.check_refused(what, &scene.with_claims(&claims(more)));
    }
    let among = scene.with_claims(&claims(r#","iss":"https://id.example","aud":["other","playhead"]"#));
    scene.check_taken("an audience among others", &among);
    let good = signed(&scene.secret);
    scene.end(&good, &[]);
    // Where they are not configured they are no matter.
    let scene = Scene::new(&[], plain);
    scene.check_taken("any issuer and audience", &scene.with_claims(&claims(r#","iss":"any","aud":"any""#)));
    let good = token(&scene.directory, USER);
    scene.end(&good, &[]);
}
