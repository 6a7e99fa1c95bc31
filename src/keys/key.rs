//! One key: generation, import of PEM files, checks of quality, signing and verification. josekit is named only here.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use josekit::jwk::Jwk;
use josekit::jws::alg::ecdsa::EcdsaJwsAlgorithm;
use josekit::jws::alg::eddsa::EddsaJwsAlgorithm;
use josekit::jws::alg::rsassa::RsassaJwsAlgorithm;
use josekit::jws::alg::rsassa_pss::RsassaPssJwsAlgorithm;
use josekit::jws::{JwsSigner, JwsVerifier};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::{HasPublic, Id, PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use serde_json::{Map, Value, json};

use crate::config::Algorithm;

/// Key of the seed's public repository: anybody can sign with it.
const PUBLISHED_BY_THE_SEED: &str = "l2O3ZeDNptr2SUronqth4VEtDbuV-ahJN9oLu6dQv6U";
/// The smallest RSA modulus in bits (RFC 7518 3.3), and the largest that is not a burden.
const RSA_BITS: std::ops::RangeInclusive<i32> = 2048..=4096;
const NOT_A_PAIR: &str = "the private and the public half do not belong together";

/// What is wrong with a key; the message names no secret.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub(super) String);

impl From<openssl::error::ErrorStack> for Fault {
    fn from(error: openssl::error::ErrorStack) -> Self {
        Self(format!("OpenSSL: {error}"))
    }
}

impl From<josekit::JoseError> for Fault {
    fn from(error: josekit::JoseError) -> Self {
        Self(error.to_string())
    }
}

/// A private key of good quality and the algorithm it is used with.
pub(super) struct PrivateKey {
    pub(super) algorithm: Algorithm,
    key: PKey<Private>,
}

/// A key that signs and verifies, parsed once: parsing costs a hundred times a signature.
pub struct Key {
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// The only algorithm it is used with (RFC 8725 3.1).
    pub algorithm: Algorithm,
    /// The public half as it stands in the JWK Set (RFC 7517 4).
    pub public_jwk: Value,
    signer: Box<dyn JwsSigner + Send + Sync>,
    verifier: Box<dyn JwsVerifier + Send + Sync>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl Key {
    /// The key of a PEM file, as an import makes it.
    #[cfg(test)]
    pub(crate) fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Self, Fault> {
        PrivateKey::from_pem(pem, algorithm)?.prepare()
    }

    /// Signs the signing input of a JWS (RFC 7515 5.1).
    pub fn sign(&self, input: &[u8]) -> Result<Vec<u8>, Fault> {
        Ok(self.signer.sign(input)?)
    }

    /// True when `signature` is this key's over `input`.
    #[must_use]
    pub fn is_signature(&self, input: &[u8], signature: &[u8]) -> bool {
        self.verifier.verify(input, signature).is_ok()
    }
}

impl PrivateKey {
    /// Makes a new key; `rsa_bits` counts for the RSA algorithms only.
    pub(super) fn generate(algorithm: Algorithm, rsa_bits: u32) -> Result<Self, Fault> {
        let key = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => PKey::from_rsa(Rsa::generate(rsa_bits)?)?,
            Algorithm::ES256 => {
                PKey::from_ec_key(EcKey::generate(EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?.as_ref())?)?
            }
            Algorithm::EdDSA => PKey::generate_ed25519()?,
        };
        Ok(Self { algorithm, key })
    }

    /// Reads a PEM file (PKCS#1, SEC 1 or PKCS#8) and checks the key's quality; of its algorithms it takes the wanted one.
    pub(super) fn from_pem(pem: &[u8], algorithm: Algorithm) -> Result<Self, Fault> {
        let text = String::from_utf8_lossy(pem);
        if text.contains("ENCRYPTED") {
            return Err(Fault("the private key is encrypted; store it decrypted, with mode 0600".to_owned()));
        }
        // The callback answers an encrypted key without asking at a terminal.
        let key = PKey::private_key_from_pem_callback(pem, |_| Ok(0))
            .map_err(|_| Fault("is not a complete PEM private key".to_owned()))?;
        Self::checked(key, algorithm)
    }

    pub(super) fn from_der(der: &[u8], algorithm: Algorithm) -> Result<Self, Fault> {
        Ok(Self { algorithm, key: PKey::private_key_from_pkcs8(der)? })
    }

    pub(super) fn to_der(&self) -> Result<Vec<u8>, Fault> {
        Ok(self.key.private_key_to_pkcs8()?)
    }

    /// Takes `wanted` when the key can, else what the key is made for.
    fn checked(key: PKey<Private>, wanted: Algorithm) -> Result<Self, Fault> {
        let is_p256 =
            |key: &PKey<Private>| key.ec_key().is_ok_and(|key| key.group().curve_name() == Some(Nid::X9_62_PRIME256V1));
        let algorithm = match key.id() {
            Id::RSA if wanted == Algorithm::PS256 => Algorithm::PS256,
            Id::RSA => Algorithm::RS256,
            Id::EC if is_p256(&key) => Algorithm::ES256,
            Id::ED25519 => Algorithm::EdDSA,
            _ => return Err(Fault("is neither RSA nor P-256 nor Ed25519".to_owned())),
        };
        if let Ok(rsa) = key.rsa() {
            check_rsa(&rsa)?;
        }
        // SP 800-56A 5.6.2.3.3: on the curve, and the public half of this private one.
        if key.ec_key().is_ok_and(|key| key.check_key().is_err()) {
            return Err(Fault(NOT_A_PAIR.to_owned()));
        }
        if thumbprint(&public_members(&key)?) == PUBLISHED_BY_THE_SEED {
            return Err(Fault(
                "this is the key pair that the FastAPI service published in its repository: anybody can sign with it; \
                 make a new one (openssl genrsa -out private.pem 2048)"
                    .to_owned(),
            ));
        }
        Ok(Self { algorithm, key })
    }

    /// Errors when the key cannot sign with the algorithm of the setting.
    pub(super) fn require(&self, algorithm: Algorithm) -> Result<(), Fault> {
        if self.algorithm == algorithm {
            return Ok(());
        }
        Err(Fault(format!("the key cannot be used with {} (keys.algorithm)", algorithm.name())))
    }

    /// RFC 7638 thumbprint of the public half.
    pub(super) fn kid(&self) -> Result<String, Fault> {
        Ok(thumbprint(&public_members(&self.key)?))
    }

    /// The public half as PEM (RFC 7468 13).
    pub(super) fn public_pem(&self) -> Result<String, Fault> {
        Ok(String::from_utf8_lossy(&self.key.public_key_to_pem()?).into_owned())
    }

    /// Builds the signer and the verifier.
    pub(super) fn prepare(&self) -> Result<Key, Fault> {
        let members = public_members(&self.key)?;
        let kid = thumbprint(&members);
        let mut public_jwk = members;
        public_jwk.insert("use".to_owned(), json!("sig"));
        public_jwk.insert("alg".to_owned(), json!(self.algorithm.name()));
        public_jwk.insert("kid".to_owned(), json!(kid));
        // josekit insists on the kid of a token when the verifier has one; ours is chosen by kid already.
        let mut anonymous = public_jwk.clone();
        anonymous.remove("kid");
        let jwk = Jwk::from_map(anonymous)?;
        let (signer, verifier): (Box<dyn JwsSigner + Send + Sync>, Box<dyn JwsVerifier + Send + Sync>) =
            match self.algorithm {
                Algorithm::RS256 => {
                    let der = self.key.rsa()?.private_key_to_der()?;
                    let algorithm = RsassaJwsAlgorithm::Rs256;
                    (Box::new(algorithm.signer_from_der(der)?), Box::new(algorithm.verifier_from_jwk(&jwk)?))
                }
                Algorithm::PS256 => {
                    let der = self.key.rsa()?.private_key_to_der()?;
                    let algorithm = RsassaPssJwsAlgorithm::Ps256;
                    (Box::new(algorithm.signer_from_der(der)?), Box::new(algorithm.verifier_from_jwk(&jwk)?))
                }
                Algorithm::ES256 => {
                    let algorithm = EcdsaJwsAlgorithm::Es256;
                    (Box::new(algorithm.signer_from_der(self.to_der()?)?), Box::new(algorithm.verifier_from_jwk(&jwk)?))
                }
                Algorithm::EdDSA => {
                    let algorithm = EddsaJwsAlgorithm::Eddsa;
                    (Box::new(algorithm.signer_from_der(self.to_der()?)?), Box::new(algorithm.verifier_from_jwk(&jwk)?))
                }
            };
        Ok(Key { kid, algorithm: self.algorithm, public_jwk: Value::Object(public_jwk), signer, verifier })
    }
}

/// The thumbprint of a PEM public key, for comparison.
pub(super) fn kid_of_public_pem(pem: &[u8]) -> Result<String, Fault> {
    let key = PKey::public_key_from_pem(pem).map_err(|_| Fault("is not a complete PEM public key".to_owned()))?;
    Ok(thumbprint(&public_members(&key)?))
}

/// RFC 7517 4 and RFC 7518 6: the required members of the public half.
fn public_members(key: &PKeyRef<impl HasPublic>) -> Result<Map<String, Value>, Fault> {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let value = match key.id() {
        Id::RSA => {
            let rsa = key.rsa()?;
            json!({"kty": "RSA", "n": encode(&rsa.n().to_vec()), "e": encode(&rsa.e().to_vec())})
        }
        Id::EC => {
            let key = key.ec_key()?;
            let (mut x, mut y) = (BigNum::new()?, BigNum::new()?);
            let mut context = BigNumContext::new()?;
            key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context)?;
            json!({"kty": "EC", "crv": "P-256", "x": encode(&x.to_vec_padded(32)?), "y": encode(&y.to_vec_padded(32)?)})
        }
        Id::ED25519 => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&key.raw_public_key()?)}),
        _ => return Err(Fault("is neither RSA nor P-256 nor Ed25519".to_owned())),
    };
    let Value::Object(members) = value else { unreachable!("an object was written above") };
    Ok(members)
}

/// RFC 7638 3: SHA-256 over the required members in lexicographic order.
fn thumbprint(members: &Map<String, Value>) -> String {
    let ordered: std::collections::BTreeMap<_, _> =
        members.iter().filter(|(name, _)| !["use", "alg", "kid"].contains(&name.as_str())).collect();
    let text = serde_json::to_string(&ordered).expect("strings serialise");
    BASE64_URL_SAFE_NO_PAD.encode(openssl::sha::sha256(text.as_bytes()))
}

fn check_rsa(rsa: &Rsa<Private>) -> Result<(), Fault> {
    let bits = rsa.n().num_bits();
    if !RSA_BITS.contains(&bits) {
        let (least, most) = RSA_BITS.into_inner();
        return Err(Fault(format!("the RSA key has {bits} bits; {least} to {most} are accepted")));
    }
    // FIPS 186-5 A.1.1: an odd public exponent above 2^16.
    if rsa.e().num_bits() < 17 || !rsa.e().is_bit_set(0) {
        return Err(Fault("the public exponent is smaller than 65537".to_owned()));
    }
    if let (Some(p), Some(q)) = (rsa.p(), rsa.q()) {
        let mut difference = BigNum::new()?;
        difference.checked_sub(p, q)?;
        // FIPS 186-5 A.1.3: |p - q| > 2^(bits/2 - 100), else the modulus is factored by Fermat's method.
        if difference.num_bits() <= bits / 2 - 100 {
            return Err(Fault("the two primes are too close to each other".to_owned()));
        }
    }
    if !rsa.check_key().unwrap_or(false) {
        return Err(Fault(NOT_A_PAIR.to_owned()));
    }
    if has_roca_fingerprint(rsa)? {
        return Err(Fault("the key was made by a generator with the ROCA weakness (CVE-2017-15361)".to_owned()));
    }
    Ok(())
}

/// True when the modulus is, for every small prime, a power of 65537: keys of the broken generator are, others hardly ever.
fn has_roca_fingerprint(rsa: &Rsa<Private>) -> Result<bool, Fault> {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    for prime in PRIMES {
        let remainder = rsa.n().mod_word(prime)?;
        let is_power = std::iter::successors(Some(1_u64), |power| Some(power * 65537 % u64::from(prime)))
            .take(prime as usize)
            .any(|power| power == remainder);
        if !is_power {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638_3_1() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                 tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5h\
                 ajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let members = json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"});

        let kid = thumbprint(members.as_object().expect("an object"));

        assert_eq!(kid, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn every_algorithm_signs_and_verifies_and_shows_no_private_member() {
        for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
            let key = PrivateKey::generate(algorithm, 2048).expect("generated").prepare().expect("prepared");

            let signature = key.sign(b"input").expect("signed");

            assert!(key.is_signature(b"input", &signature), "{algorithm:?}");
            assert!(!key.is_signature(b"other", &signature), "{algorithm:?}");
            let again = key.sign(b"input").expect("signed");
            assert_eq!(signature == again, algorithm.is_deterministic(), "{algorithm:?}");
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(key.public_jwk.get(private).is_none(), "{algorithm:?} shows {private}");
            }
        }
    }

    #[test]
    fn weak_and_foreign_keys_are_refused() {
        let pem = |rsa: &Rsa<Private>| rsa.private_key_to_pem().expect("PEM");
        let exponent_three = Rsa::generate_with_e(2048, &BigNum::from_u32(3).expect("number")).expect("generated");
        let ec = PrivateKey::generate(Algorithm::ES256, 0).expect("generated").key.private_key_to_pem_pkcs8();
        let rsa = Rsa::generate(2048).expect("generated");
        let whole = pem(&rsa);
        let encrypted = rsa.private_key_to_pem_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"word");
        let rows = [
            ("1024 bits", pem(&Rsa::generate(1024).expect("generated")), "1024 bits"),
            ("e = 3", pem(&exponent_three), "public exponent"),
            ("elliptic curve", ec.expect("PEM"), "cannot be used with RS256"),
            ("truncated", whole[..whole.len() / 2].to_vec(), "not a complete PEM"),
            ("encrypted", encrypted.expect("PEM"), "encrypted"),
            ("empty", Vec::new(), "not a complete PEM"),
        ];
        for (name, pem, fault) in rows {
            let refused = PrivateKey::from_pem(&pem, Algorithm::RS256)
                .and_then(|key| key.require(Algorithm::RS256))
                .err()
                .map(|fault| fault.0)
                .unwrap_or_default();
            assert!(refused.contains(fault), "{name}: {refused}");
        }
    }
}
