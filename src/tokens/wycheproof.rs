//! Project Wycheproof's vectors of JSON Web Signature, Crypto and Key against our verifier. `tests/it/tokens/wycheproof.rs` sends the
//! same tokens to a server.
//!
//! A vector brings its key as a JWK. We take keys as PEM files only, so the key goes through that door: what a JWK can say and a PEM
//! file cannot (`use`, `alg`, `key_ops`, two keys of one `kid`) is not ours to judge, and the list below names each vector that
//! says nothing else.

use std::ops::RangeInclusive;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::RsaPrivateKeyBuilder;
use serde_json::Value;

use super::{Error, jws};
use crate::config::Algorithm;
use crate::keys::Key;

const SIGNATURE: &str = "signature";
const CRYPTO: &str = "crypto";
const KEY: &str = "key";

/// The groups of each file; importing the keys takes a while.
static FILES: LazyLock<[(&str, Vec<Group>); 3]> = LazyLock::new(|| {
    [
        (SIGNATURE, groups(include_str!("../../tests/it/wycheproof/json_web_signature_test.json"))),
        (CRYPTO, groups(include_str!("../../tests/it/wycheproof/json_web_crypto_test.json"))),
        (KEY, groups(include_str!("../../tests/it/wycheproof/json_web_key_test.json"))),
    ]
});

/// What our verifier says of a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The signature is the key's. Vectors have no claims, which are read only then.
    Accepted,
    Refused(String),
}

/// Vectors of which we think otherwise than Wycheproof: whether we accept them, and why that is right.
const DIFFERENT: [(&str, &[RangeInclusive<u64>], bool, &str); 15] = [
    (SIGNATURE, &[1..=1, 348..=348, 352..=352], false, "HS256 is not offered: no secret is shared with verifiers"),
    (
        SIGNATURE,
        &[357..=359, 372..=373, 376..=377],
        false,
        "HS256 is not offered; 372 and 373 are not base64url either",
    ),
    (SIGNATURE, &[264..=267], false, "RS384 is not offered"),
    (SIGNATURE, &[268..=271], false, "RS512 is not offered"),
    (SIGNATURE, &[320..=323], false, "PS384 is not offered"),
    (SIGNATURE, &[325..=328], false, "PS512 is not offered"),
    (
        SIGNATURE,
        &[346..=346, 350..=350],
        false,
        "the key is for PS256 and the token is signed with PS384 (RFC 8725 3.1)",
    ),
    (SIGNATURE, &[347..=347, 351..=351], false, "ES512 is not offered"),
    (SIGNATURE, &[353..=356], true, "the JWK is not for signatures, which a PEM file does not say"),
    (
        SIGNATURE,
        &[338..=338],
        true,
        "the JWK is for PS512, the token is signed with PS256; of a PEM file our setting decides",
    ),
    (CRYPTO, &[1..=1, 48..=48], false, "HS256 is not offered"),
    (CRYPTO, &[50..=50, 67..=67], false, "JWE is not offered"),
    (KEY, &[2..=2, 13..=15], false, "HS256, HS384 and HS512 are not offered"),
    (KEY, &[6..=6, 21..=21], true, "the JWK is for encryption, which a PEM file does not say"),
    (KEY, &[19..=20], true, "the JWK names another algorithm; of a PEM file the curve decides"),
];

/// Vectors whose key must not get in, and what the operator is told (RFC 7518 3.3, RFC 8725 3.5).
const WEAK_KEYS: [(&str, u64, &str); 4] = [
    (CRYPTO, 46, "ROCA"),
    (KEY, 7, "ROCA"),
    (KEY, 8, "the RSA key has 1024 bits"),
    (KEY, 9, "the public exponent is smaller than 65537"),
];

/// Vectors that share their keys.
struct Group {
    /// Each JWK, and the key that it gives us or why it gives none.
    keys: Vec<(Value, Result<Key, String>)>,
    vectors: Vec<Value>,
}

/// RFC 7515 5.2, RFC 8725 2.
#[test]
fn every_vector_is_judged_as_wycheproof_does_or_is_listed() {
    let counts = FILES.each_ref().map(|(file, _)| vectors(file).count());
    assert_eq!(counts, [401, 83, 26]);

    let (mut faults, mut listed) = (Vec::new(), 0);
    for file in [SIGNATURE, CRYPTO, KEY] {
        for (group, vector) in vectors(file) {
            let id = vector["tcId"].as_u64().expect("a number");
            let verdict = group.verdict(vector);
            let listing = DIFFERENT.iter().find(|(of, ids, ..)| *of == file && ids.iter().any(|ids| ids.contains(&id)));
            listed += usize::from(listing.is_some());
            // A listed vector is one of which Wycheproof thinks otherwise: the list does not go stale.
            let expected = (vector["result"] == "valid") != listing.is_some();
            let is_accepted = verdict == Verdict::Accepted;
            if is_accepted != expected || listing.is_some_and(|(_, _, is_listed, _)| *is_listed != is_accepted) {
                faults.push(format!("{file} {id} {}, {}: {verdict:?}", vector["comment"], vector["result"]));
            }
        }
    }

    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let ids = DIFFERENT.iter().flat_map(|(_, ids, ..)| ids.iter());
    assert_eq!(listed, ids.map(|ids| ids.clone().count()).sum::<usize>());
}

/// Signatures of the algorithms that we offer are verified, not only refused.
#[test]
fn valid_vectors_of_what_we_offer_are_accepted() {
    let rows = [
        ("RS256", SIGNATURE, 8),
        ("PS256", SIGNATURE, 6),
        ("ES256", SIGNATURE, 2),
        ("RS256", CRYPTO, 1),
        ("ES256", CRYPTO, 1),
        ("RS256", KEY, 1),
    ];
    for (algorithm, file, count) in rows {
        let valid =
            vectors(file).filter(|(group, vector)| group.keys[0].0["alg"] == algorithm && vector["result"] == "valid");
        let accepted = valid.filter(|(group, vector)| group.verdict(vector) == Verdict::Accepted);
        assert_eq!(accepted.count(), count, "{algorithm} of {file}");
    }
}

#[test]
fn weak_keys_of_wycheproof_do_not_get_in() {
    for (file, id, fault) in WEAK_KEYS {
        let (group, _) = vectors(file).find(|(_, vector)| vector["tcId"] == id).expect("the vector");
        let refusal = group.keys[0].1.as_ref().expect_err("a weak key");
        assert!(refusal.contains(fault), "{id}: {refusal}");
    }
}

/// Every vector of a file, with its group.
fn vectors(file: &str) -> impl Iterator<Item = (&'static Group, &'static Value)> {
    let (_, groups) = FILES.iter().find(|(name, _)| *name == file).expect("a file");
    groups.iter().flat_map(|group| group.vectors.iter().map(move |vector| (group, vector)))
}

fn groups(file: &str) -> Vec<Group> {
    let file: Value = serde_json::from_str(file).expect("JSON");
    let groups: Vec<Group> = file["testGroups"].as_array().expect("groups").iter().map(Group::new).collect();
    assert_eq!(file["numberOfTests"], groups.iter().map(|group| group.vectors.len()).sum::<usize>());
    groups
}

impl Group {
    fn new(group: &Value) -> Self {
        let jwk = &group["private"];
        let jwks = jwk["keys"].as_array().cloned().unwrap_or_else(|| vec![jwk.clone()]);
        let keys = jwks.into_iter().map(|jwk| (jwk.clone(), key(&jwk))).collect();
        Self { keys, vectors: group["tests"].as_array().expect("tests").clone() }
    }

    /// What is received is verified with the key that it names; if there is one key only, with that one.
    fn verdict(&self, vector: &Value) -> Verdict {
        let token = vector.get("jws").unwrap_or(&vector["jwe"]);
        // The JSON serialization (RFC 7515 7.2) as it would be sent.
        let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
        let result = jws::Unverified::parse(&token).and_then(|token| {
            let is_named = |jwk: &Value| self.keys.len() == 1 || jwk["kid"].as_str() == token.kid();
            // Two keys of one kid cannot be in our ring, where it is the thumbprint: either may be meant.
            let key = self.keys.iter().find_map(|(jwk, key)| key.as_ref().ok().filter(|_| is_named(jwk)));
            token.verify(key)
        });
        match result {
            Ok(_) | Err(Error::Invalid("Invalid payload")) => Verdict::Accepted,
            Err(error) => Verdict::Refused(error.to_string()),
        }
    }
}

/// The key of a JWK, by way of a PEM file. `Err` says why there is none.
fn key(jwk: &Value) -> Result<Key, String> {
    let number = |name: &str| -> Result<BigNum, String> {
        let text = jwk[name].as_str().ok_or(format!("no {name}"))?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| error.to_string())?;
        BigNum::from_slice(&bytes).map_err(|error| error.to_string())
    };
    let (pem, algorithm) = match jwk["kty"].as_str() {
        Some("RSA") => {
            let key = RsaPrivateKeyBuilder::new(number("n")?, number("e")?, number("d")?)
                .and_then(|key| key.set_factors(number("p").expect("p"), number("q").expect("q")))
                .and_then(|key| {
                    let (dp, dq, qi) =
                        (number("dp").expect("dp"), number("dq").expect("dq"), number("qi").expect("qi"));
                    key.set_crt_params(dp, dq, qi)
                })
                .and_then(|key| key.build().private_key_to_pem());
            let is_pss = jwk["alg"].as_str().is_some_and(|alg| alg.starts_with("PS"));
            (key, if is_pss { Algorithm::PS256 } else { Algorithm::RS256 })
        }
        Some("EC") => {
            let curve = match jwk["crv"].as_str() {
                Some("P-256") => Nid::X9_62_PRIME256V1,
                Some("P-384") => Nid::SECP384R1,
                _ => Nid::SECP521R1,
            };
            let group = EcGroup::from_curve_name(curve).expect("a curve");
            let (x, y, d) = (number("x")?, number("y")?, number("d")?);
            let public = EcKey::from_public_key_affine_coordinates(&group, &x, &y).map_err(|_| "not on the curve")?;
            let key = EcKey::from_private_components(&group, &d, public.public_key()).and_then(PKey::from_ec_key);
            (key.and_then(|key| key.private_key_to_pem_pkcs8()), Algorithm::ES256)
        }
        _ => return Err("symmetric keys have no PEM file".to_owned()),
    };
    Key::from_pem(&pem.map_err(|error| error.to_string())?, algorithm).map_err(|fault| fault.to_string())
}
