//! 2E, the part on form and signature: what is not the compact form of a whole signature by the key's own algorithm.

use openssl::hash::MessageDigest;

use super::access::{INVALID, KIND, Row, row};
use super::forge::Forge;
use crate::tokens::{self, encode, hmac, part, token};

/// Of the points of P-256.
const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

pub(super) fn rows(forge: &Forge) -> Vec<Row> {
    let mut rows = forms(forge);
    rows.extend(algorithms(forge));
    rows
}

/// Not the compact form of a whole signature.
fn forms(forge: &Forge) -> Vec<Row> {
    let genuine = &forge.pair.access;
    let parts: Vec<&str> = genuine.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let other = encode(tokens::mutated(genuine, "sub", Some(r#""5f2b3c1e-8c53-4c55-9c0e-0f3a1d2b4c5d""#)));
    let json = format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#);
    let zeros = encode([0; 256]);
    let rows = [
        ("E09", "one byte", "a".to_owned()),
        ("E09", ".", ".".to_owned()),
        ("E09", "..", "..".to_owned()),
        ("E09", "a.b.c", "a.b.c".to_owned()),
        ("E09", "five parts", format!("{genuine}.a.b")),
        ("E09", "JSON serialisation", json),
        ("E10", "another payload", format!("{header}.{other}.{signature}")),
        ("E13", "signature stripped", format!("{header}.{payload}.")),
        ("E13", "signature and dot stripped", format!("{header}.{payload}")),
        ("+E13", "zeros", format!("{header}.{payload}.{zeros}")),
        ("+E13", "signature of one byte", format!("{header}.{payload}.AA")),
        ("+E13", "signature cut by a character", genuine[..genuine.len() - 1].to_owned()),
        ("+E13", "signature and four characters", format!("{genuine}AAAA")),
        ("+E13", "padded", format!("{genuine}==")),
        ("+E13", "the header's signature", format!("{header}.{payload}.{header}")),
        ("+E13", "parts in another order", format!("{payload}.{header}.{signature}")),
        ("+E13", "an empty payload", format!("{header}..{signature}")),
        ("+E13", "an empty header", format!(".{payload}.{signature}")),
        ("+E13", "quoted", format!("\"{genuine}\"")),
        ("+E13", "percent-encoded", genuine.replace('.', "%2e")),
        ("+E13", "five parts as of a JWE", format!("{genuine}.{payload}.{signature}")),
        ("+E13", "an opaque refresh token", format!("rt1.{}", "A".repeat(108))),
        ("+E13", "an opaque refresh token, cut", "rt1.AAAA".to_owned()),
        ("+E13", "rt1.", "rt1.".to_owned()),
    ];
    let mut rows: Vec<Row> = rows.into_iter().map(|(id, name, token)| row(id, name, token, INVALID)).collect();
    rows.push(row("F03", "a refresh token", &forge.pair.refresh, KIND));
    rows
}

/// RFC 8725 3.1: the algorithm is the key's.
fn algorithms(forge: &Forge) -> Vec<Row> {
    let payload = part(&forge.pair.access, 1);
    let of = |alg: &str| format!(r#"{{"alg":{alg},"typ":"at+jwt","kid":"{}"}}"#, forge.kid);
    let mut rows = Vec::new();
    for alg in [r#""none""#, r#""None""#, r#""NONE""#, r#""nOnE""#, r#""""#] {
        let unsigned = token(of(alg), &payload, |_| Vec::new());
        rows.push(row("E12", format!("{alg}, a dot at the end"), &unsigned, INVALID));
        rows.push(row("E12", format!("{alg}, no dot at the end"), unsigned.trim_end_matches('.'), INVALID));
        rows.push(row("E12", format!("{alg}, well signed"), forge.under(of(alg)), INVALID));
    }
    for alg in
        ["256", "null", "true", r#"["RS256"]"#, r#"{"a":"RS256"}"#, r#""rs256""#, r#""RS256 ""#, r#""RS256\u0000""#]
    {
        rows.push(row("E15", format!("alg {alg}"), forge.under(of(alg)), INVALID));
    }
    let missing = format!(r#"{{"typ":"at+jwt","kid":"{}"}}"#, forge.kid);
    rows.push(row("E15", "alg missing", forge.under(missing), INVALID));
    for (alg, digest) in [("RS384", MessageDigest::sha384()), ("RS512", MessageDigest::sha512())] {
        let signed = token(of(&format!("\"{alg}\"")), &payload, |input| tokens::signature(forge.key(), digest, input));
        rows.push(row("E16", alg, signed, INVALID));
    }
    for alg in ["PS256", "ES256", "EdDSA", "RSA1_5", "dir", "A256GCMKW"] {
        rows.push(row("E16", alg, forge.under(of(&format!("\"{alg}\""))), INVALID));
    }
    let rsa = forge.key().rsa().unwrap();
    let secrets: [(&str, &str, Vec<u8>); 8] = [
        // An empty key: HMAC pads with zeros, and the library here does not take none (RFC 2104 2).
        ("E16", "HS256 with an empty secret", vec![0]),
        ("E18", "HS256 with the public key, X.509", forge.key().public_key_to_pem().unwrap()),
        ("E18", "HS256 with the public key, PKCS#1", rsa.public_key_to_pem_pkcs1().unwrap()),
        ("E18", "HS256 with the public key, DER", forge.key().public_key_to_der().unwrap()),
        ("E18", "HS256 with the modulus", rsa.n().to_vec()),
        ("E20", "HS256 with `secret`", b"secret".to_vec()),
        ("E20", "HS256 with `your-256-bit-secret`", b"your-256-bit-secret".to_vec()),
        ("E20", "HS256 with the kid", forge.kid.clone().into_bytes()),
    ];
    for (id, name, secret) in secrets {
        let signed = token(of("\"HS256\""), &payload, |input| hmac(&secret, MessageDigest::sha256(), input));
        rows.push(row(id, name, signed, INVALID));
    }
    let order: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&ORDER[2 * at..2 * at + 2], 16).unwrap()).collect();
    for (name, r, s) in [
        ("r=s=0", vec![0; 32], vec![0; 32]),
        ("r=n", order.clone(), vec![1; 32]),
        ("s=n", vec![1; 32], order.clone()),
        ("r=s=n", order.clone(), order),
    ] {
        let psychic = token(of("\"ES256\""), &payload, |_| [r, s].concat());
        rows.push(row("E19", format!("ES256 {name}"), psychic, INVALID));
    }
    rows
}
