//! Headers and signatures that are not ours.

use std::net::TcpListener;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::asn1::Asn1Time;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use openssl::x509::X509Builder;
use reqwest::Method;

use super::{Forge, INVALID, WRONG_KIND, encode, fault, hmac, part, signature, token};
use crate::support::Engine;

/// A name, a header in which `TYP` stands for the media type and `KID` for our kid, and what makes the signature.
type Row = (String, Vec<u8>, Box<dyn Fn(&[u8]) -> Vec<u8>>);

fn row(name: &str, header: &str, sign: impl Fn(&[u8]) -> Vec<u8> + 'static) -> Row {
    (name.to_owned(), header.as_bytes().to_vec(), Box::new(sign))
}

/// Every row as an access token at the endpoints of access tokens and as a refresh token at those of refresh tokens: all are 401,
/// and none ends the session.
async fn refuse_all(forge: &Forge, rows: Vec<Row>) {
    let mut faults = Vec::new();
    for (name, header, sign) in rows {
        let kinds = [("at+jwt", &forge.pair.access), ("refresh+jwt", &forge.pair.refresh)];
        let [access, refresh] = kinds.map(|(typ, genuine)| {
            let header = replaced(&replaced(&header, b"TYP", typ.as_bytes()), b"KID", forge.kid.as_bytes());
            token(header, part(genuine, 1), &sign)
        });
        faults.extend(forge.refusals(&name, &access, INVALID).await);
        for path in ["auth/refresh", "auth/logout"] {
            let answer = forge.app.with_token(Method::POST, path, &refresh).await;
            faults.extend(fault(&answer, INVALID).map(|fault| format!("{name} at {path}: {fault}")));
        }
    }
    forge.finish(faults).await;
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(start) => [&bytes[..start], to, &bytes[start + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

/// Signs as the server does.
fn ours(forge: &Forge) -> impl Fn(&[u8]) -> Vec<u8> + Clone + 'static {
    let key = forge.key.clone();
    move |input| signature(&key, MessageDigest::sha256(), input)
}

/// RFC 8725 3.1 and 3.2: the algorithm is the key's, whatever the header says.
#[tokio::test]
async fn the_algorithm_is_the_keys_and_never_the_tokens() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let mut rows = Vec::new();

        for alg in ["none", "None", "NONE", "nOnE", ""] {
            let header = format!(r#"{{"alg":"{alg}","typ":"TYP","kid":"KID"}}"#);
            rows.push(row(&format!("alg {alg:?} unsigned"), &header, |_| Vec::new()));
            rows.push(row(&format!("alg {alg:?} signed"), &header, ours(&forge)));
        }
        for alg in ["256", "null", "true", r#"["RS256"]"#, r#"{"name":"RS256"}"#] {
            let header = format!(r#"{{"alg":{alg},"typ":"TYP","kid":"KID"}}"#);
            rows.push(row(&format!("alg {alg}"), &header, ours(&forge)));
        }
        rows.push(row("alg missing", r#"{"typ":"TYP","kid":"KID"}"#, ours(&forge)));
        for alg in ["rs256", "RS256 ", "HS256", "RS384", "PS256", "ES256", "EdDSA", "RSA-OAEP", "dir"] {
            let header = format!(r#"{{"alg":"{alg}","typ":"TYP","kid":"KID"}}"#);
            rows.push(row(&format!("alg {alg} with a signature of RS256"), &header, ours(&forge)));
        }
        rows.extend(of_our_key(&forge.key));
        rows.extend(of_other_curves());

        refuse_all(&forge, rows).await;
    }
}

/// Good signatures of our own key, by other algorithms.
fn of_our_key(key: &PKey<Private>) -> Vec<Row> {
    let pss = |key: PKey<Private>| {
        move |input: &[u8]| {
            let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
            signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
            signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
            signer.sign_oneshot_to_vec(input).unwrap()
        }
    };
    let with = |key: PKey<Private>, digest| move |input: &[u8]| signature(&key, digest, input);
    let rs256 = r#"{"alg":"RS256","typ":"TYP","kid":"KID"}"#;
    let of = |alg| format!(r#"{{"alg":"{alg}","typ":"TYP","kid":"KID"}}"#);
    vec![
        row("RS384", &of("RS384"), with(key.clone(), MessageDigest::sha384())),
        row("RS512", &of("RS512"), with(key.clone(), MessageDigest::sha512())),
        row("PS256", &of("PS256"), pss(key.clone())),
        row("RS256 that is RS512", rs256, with(key.clone(), MessageDigest::sha512())),
        row("RS256 that is PS256", rs256, pss(key.clone())),
    ]
}

/// RFC 7518 3.4, RFC 8037 3.1: ECDSA signatures of zero and of the group's order, and keys of other types.
fn of_other_curves() -> Vec<Row> {
    const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let order: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&ORDER[2 * i..2 * i + 2], 16).unwrap()).collect();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let ec = EcKey::generate(&group).unwrap();
    let ed = PKey::generate_ed25519().unwrap();
    let es256 = r#"{"alg":"ES256","typ":"TYP","kid":"KID"}"#;
    let fixed = |r: Vec<u8>, s: Vec<u8>| move |_: &[u8]| [r.clone(), s.clone()].concat();
    vec![
        row("ES256 r=s=0", es256, fixed(vec![0; 32], vec![0; 32])),
        row("ES256 r=n", es256, fixed(order.clone(), vec![1; 32])),
        row("ES256 s=n", es256, fixed(vec![1; 32], order)),
        row("ES256 of a stranger", es256, move |input| {
            let signature = EcdsaSig::sign(&openssl::sha::sha256(input), &ec).unwrap();
            [signature.r().to_vec_padded(32).unwrap(), signature.s().to_vec_padded(32).unwrap()].concat()
        }),
        row("EdDSA of a stranger", r#"{"alg":"EdDSA","typ":"TYP","kid":"KID"}"#, move |input| {
            Signer::new_without_digest(&ed).unwrap().sign_oneshot_to_vec(input).unwrap()
        }),
    ]
}

/// RFC 8725 3.1 and 2.1: a public key is no HMAC secret, in whatever form; neither is a word that everybody knows.
#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let rsa = forge.key.rsa().unwrap();
        let jwks = forge.app.get("/.well-known/jwks.json").await;
        let spki = forge.key.public_key_to_pem().unwrap();
        let secrets: Vec<(&str, Vec<u8>)> = vec![
            ("PEM without its last line break", spki.trim_ascii_end().to_vec()),
            ("PEM", spki),
            ("PEM of PKCS#1", rsa.public_key_to_pem_pkcs1().unwrap()),
            ("DER", forge.key.public_key_to_der().unwrap()),
            ("DER of PKCS#1", rsa.public_key_to_der_pkcs1().unwrap()),
            ("JWK", jwks.json()["keys"][0].to_string().into_bytes()),
            ("JWK Set", jwks.body.clone().into_bytes()),
            ("modulus", rsa.n().to_vec()),
            ("modulus in base64url", encode(rsa.n().to_vec()).into_bytes()),
            ("kid", forge.kid.clone().into_bytes()),
            // RFC 2104 2 pads with zeros: the empty secret is this one too.
            ("a NUL", vec![0]),
            ("secret", b"secret".to_vec()),
            ("password", b"password".to_vec()),
            ("changeme", b"changeme".to_vec()),
            ("your-256-bit-secret", b"your-256-bit-secret".to_vec()),
            ("authservice", b"authservice".to_vec()),
        ];
        let mut rows = Vec::new();
        for (name, secret) in secrets {
            for (alg, digest) in [("HS256", MessageDigest::sha256()), ("HS512", MessageDigest::sha512())] {
                let header = format!(r#"{{"alg":"{alg}","typ":"TYP","kid":"KID"}}"#);
                let secret = secret.clone();
                rows.push(row(&format!("{alg} with {name}"), &header, move |input| hmac(&secret, digest, input)));
            }
        }

        refuse_all(&forge, rows).await;
    }
}

/// RFC 8725 3.10, RFC 7515 4.1.2 to 4.1.8: no key comes with a token, and none is fetched for it.
#[tokio::test]
async fn no_key_is_taken_from_a_token_or_fetched_for_it() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let rsa = Rsa::generate(2048).unwrap();
        let jwk = format!(
            r#"{{"kty":"RSA","n":"{}","e":"{}","kid":"KID"}}"#,
            encode(rsa.n().to_vec()),
            encode(rsa.e().to_vec())
        );
        let stranger = PKey::from_rsa(rsa).unwrap();
        let certificate = certificate(&stranger);
        let (x5c, x5t) = (BASE64_STANDARD.encode(&certificate), encode(openssl::sha::sha256(&certificate)));
        let theirs = {
            let stranger = stranger.clone();
            move |input: &[u8]| signature(&stranger, MessageDigest::sha256(), input)
        };

        let mut rows = Vec::new();
        for (name, member) in [
            ("jwk", format!(r#""jwk":{jwk}"#)),
            ("jku", format!(r#""jku":"{url}""#)),
            ("x5u", format!(r#""x5u":"{url}""#)),
            ("x5c", format!(r#""x5c":["{x5c}"]"#)),
            ("x5t", format!(r#""x5t":"{x5t}""#)),
            ("x5t#S256", format!(r#""x5t#S256":"{x5t}""#)),
        ] {
            let header = format!(r#"{{"alg":"RS256","typ":"TYP","kid":"KID",{member}}}"#);
            rows.push(row(&format!("{name} of a stranger"), &header, theirs.clone()));
            rows.push(row(&format!("{name} with our signature"), &header, ours(&forge)));
            let header = format!(r#"{{"alg":"RS256","typ":"TYP",{member}}}"#);
            rows.push(row(&format!("{name} instead of a kid"), &header, theirs.clone()));
        }
        let plain = r#"{"alg":"RS256","typ":"TYP","kid":"KID"}"#;
        rows.push(row("another key under our kid", plain, theirs));

        refuse_all(&forge, rows).await;
        let hit = listener.accept().expect_err("nobody connects");
        assert_eq!(hit.kind(), std::io::ErrorKind::WouldBlock);
    }
}

fn certificate(key: &PKey<Private>) -> Vec<u8> {
    let mut builder = X509Builder::new().unwrap();
    builder.set_pubkey(key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.sign(key, MessageDigest::sha256()).unwrap();
    builder.build().to_der().unwrap()
}

/// RFC 7515 4.1.4, RFC 8725 3.10: a kid is compared with those of the ring, and with nothing else.
#[tokio::test]
async fn a_kid_is_one_of_the_ring_or_nothing() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let mut rows = vec![row("kid missing", r#"{"alg":"RS256","typ":"TYP"}"#, ours(&forge))];
        let long = format!(r#""{}""#, "k".repeat(4096));
        for kid in [
            r#""""#,
            r#""unknown""#,
            "1",
            "null",
            "true",
            r#"["KID"]"#,
            r#"{"kid":"KID"}"#,
            r#"" KID""#,
            r#""KID ""#,
            r#""KID\u0000""#,
            r#""../../../../dev/null""#,
            r#""file:///dev/null""#,
            r#""' OR 1=1--""#,
            r#""' UNION SELECT 'x'--""#,
            r#""http://127.0.0.1/keys""#,
            &long,
        ] {
            let header = format!(r#"{{"alg":"RS256","typ":"TYP","kid":{kid}}}"#);
            rows.push(row(&format!("kid {kid:.40}"), &header, ours(&forge)));
        }
        let swapped: String = forge.kid.chars().map(swap_case).collect();
        let header = format!(r#"{{"alg":"RS256","typ":"TYP","kid":"{swapped}"}}"#);
        rows.push(row("kid in the other case", &header, ours(&forge)));

        refuse_all(&forge, rows).await;
    }
}

fn swap_case(letter: char) -> char {
    if letter.is_ascii_lowercase() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
}

/// RFC 7515 4 and 4.1.11, RFC 7797 6, RFC 7516 4.1.3: no extension is understood, so each is refused, and so is any header that two
/// readers could read differently.
#[tokio::test]
async fn a_header_holds_alg_typ_and_kid_once_each_and_nothing_else() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let mut rows = Vec::new();
        for member in [
            r#""crit":["exp"],"exp":1"#,
            r#""crit":["b64"],"b64":true"#,
            r#""crit":["b64"],"b64":false"#,
            r#""crit":["alg"]"#,
            r#""crit":[]"#,
            r#""crit":"exp""#,
            r#""crit":["exp","exp"]"#,
            r#""crit":null"#,
            r#""b64":false"#,
            r#""b64":true"#,
            r#""zip":"DEF""#,
            r#""cty":"JWT""#,
            r#""enc":"A128GCM""#,
            r#""iss":"https://issuer.example""#,
            r#""unknown":1"#,
            r#""alg":"none""#,
            r#""alg":"RS256""#,
            r#""\u0061lg":"RS256""#,
            r#""typ":"TYP""#,
            r#""kid":"other""#,
        ] {
            let after = format!(r#"{{"alg":"RS256","typ":"TYP","kid":"KID",{member}}}"#);
            let before = format!(r#"{{{member},"alg":"RS256","typ":"TYP","kid":"KID"}}"#);
            rows.push(row(&format!("{member} last"), &after, ours(&forge)));
            rows.push(row(&format!("{member} first"), &before, ours(&forge)));
        }
        let plain = r#"{"alg":"RS256","typ":"TYP","kid":"KID"}"#;
        for (name, header) in [
            ("byte order mark", format!("\u{feff}{plain}")),
            ("leading blank", format!(" {plain}")),
            ("leading line break", format!("\n{plain}")),
            ("trailing blank", format!("{plain} ")),
            ("two objects", format!("{plain}{plain}")),
            ("array", format!("[{plain}]")),
            ("text", r#""RS256""#.to_owned()),
            ("null", "null".to_owned()),
            ("empty object", "{}".to_owned()),
            ("nothing", String::new()),
            ("half an object", plain[..20].to_owned()),
            ("comment", plain.replacen('{', "{/**/", 1)),
            ("trailing comma", plain.replace('}', ",}")),
            ("single quotes", plain.replace('"', "'")),
            ("10,000 brackets", format!("{}{}", "[".repeat(2500), "]".repeat(2500))),
        ] {
            rows.push(row(name, &header, ours(&forge)));
        }
        let (start, end) = plain.split_at(plain.len() - 2);
        let invalid = [start.as_bytes(), b"\xff", end.as_bytes()].concat();
        rows.push(("invalid UTF-8".to_owned(), invalid, Box::new(ours(&forge))));

        refuse_all(&forge, rows).await;
    }
}

/// RFC 8725 3.11, RFC 9068 4: the media type tells kinds apart. RFC 7515 4.1.9: in any case, with or without `application/`.
#[tokio::test]
async fn the_media_type_is_that_of_an_access_token() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let payload = part(&forge.pair.access, 1);
        let with = |typ: &str| forge.sign(format!(r#"{{"alg":"RS256","typ":{typ},"kid":"{}"}}"#, forge.kid), &payload);
        let mut faults = Vec::new();

        for typ in ["at+jwt", "at+JWT", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
            faults.extend(forge.acceptances(typ, &with(&format!("\"{typ}\""))).await);
        }
        for typ in [
            r#""JWT""#,
            r#""jwt""#,
            r#""""#,
            r#""dpop+jwt""#,
            r#""logout+jwt""#,
            r#""id+jwt""#,
            r#""at+jwt ""#,
            r#""at+jwt; charset=utf-8""#,
            r#""application/application/at+jwt""#,
            r#""text/at+jwt""#,
            "1",
            "null",
            r#"["at+jwt"]"#,
        ] {
            faults.extend(forge.refusals(typ, &with(typ), INVALID).await);
        }
        let missing = forge.sign(format!(r#"{{"alg":"RS256","kid":"{}"}}"#, forge.kid), &payload);
        faults.extend(forge.refusals("typ missing", &missing, INVALID).await);
        faults.extend(forge.refusals("refresh", &with(r#""refresh+jwt""#), WRONG_KIND).await);

        forge.finish(faults).await;
    }
}
