//! R20 and R21: key files that are no good, and files that others may read.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::{Rsa, RsaPrivateKeyBuilder};
use openssl::symm::Cipher;
use proofs::Result;
use proofs::server::Settings;

use crate::refusal::Start;
use crate::world::World;

/// A file of `keys/` and what is in it.
struct Bad {
    name: &'static str,
    files: Vec<(&'static str, Vec<u8>)>,
    /// The file that the refusal names.
    named: &'static str,
}

/// R20.
pub(super) async fn bad_files(world: &mut World) -> Result<()> {
    let corpus = corpus()?;
    let (mut refused, mut wrong) = (0, Vec::new());
    for (number, bad) in corpus.iter().enumerate() {
        let (settings, keys) = fresh(world, &format!("bad{number}"))?;
        for (file, bytes) in &bad.files {
            write(&keys.join(file), bytes, 0o600)?;
        }
        let start = Start::of(&settings).await?;
        if start.is_refusal_of(bad.named) {
            refused += 1;
        } else {
            wrong.push(format!("{}: exit {:?} after {:.1?}: {}", bad.name, start.code, start.time, start.text.trim()));
        }
    }
    let figure = format!("{refused} of {} {}", corpus.len(), wrong.join("; "));
    world.promise("a bad key file is named, exit 78 within 2 s", figure, wrong.is_empty());
    Ok(())
}

fn corpus() -> Result<Vec<Bad>> {
    let rsa = |bits, exponent| -> Result<PKey<openssl::pkey::Private>> {
        Ok(PKey::from_rsa(Rsa::generate_with_e(bits, &*BigNum::from_u32(exponent)?)?)?)
    };
    let good = rsa(2048, 65537)?;
    let pem = good.private_key_to_pem_pkcs8()?;
    let other = rsa(2048, 65537)?;
    let p256 = EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?;
    let private = |name, bytes: Vec<u8>| Bad { name, files: vec![("private.pem", bytes)], named: "private.pem" };
    let sealing =
        |name, bytes: &[u8]| Bad { name, files: vec![("encryption.key", bytes.to_vec())], named: "encryption.key" };
    let half = pem[..pem.len() / 2].to_vec();
    let locked = good.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"Canary!")?;
    let mut flipped = pem.clone();
    let middle = flipped.len() / 2;
    flipped[middle] = if flipped[middle] == b'A' { b'B' } else { b'A' };
    Ok(vec![
        private("empty", Vec::new()),
        private("truncated", half),
        private("one letter changed", flipped),
        private("text", b"not a key\n".to_vec()),
        private("DER", good.private_key_to_der()?),
        private("only the head and foot", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n".to_vec()),
        private("P-256 for RS256", PKey::from_ec_key(p256)?.private_key_to_pem_pkcs8()?),
        private("Ed25519 for RS256", PKey::generate_ed25519()?.private_key_to_pem_pkcs8()?),
        private("encrypted", locked),
        private("1024 bits", rsa(1024, 65537)?.private_key_to_pem_pkcs8()?),
        private("exponent 3", rsa(2048, 3)?.private_key_to_pem_pkcs8()?),
        private("primes that are neighbours", neighbours()?),
        Bad {
            name: "another public key",
            files: vec![("private.pem", pem), ("public.pem", other.public_key_to_pem()?)],
            named: "public.pem",
        },
        sealing("empty encryption key", b""),
        sealing("short encryption key", b"q83vEjRWeJA=\n"),
        sealing("encryption key that is none", b"Canary! is not base64\n"),
    ])
}

/// An RSA key that Fermat's method factors at once.
#[expect(clippy::many_single_char_names, reason = "the names of RFC 8017")]
fn neighbours() -> Result<Vec<u8>> {
    let mut context = BigNumContext::new()?;
    let number = BigNum::new;
    let (mut p, mut q) = (number()?, number()?);
    let (e, one, two) = (BigNum::from_u32(65537)?, BigNum::from_u32(1)?, BigNum::from_u32(2)?);
    let (mut p1, mut q1, mut phi, mut d) = (number()?, number()?, number()?, number()?);
    loop {
        p.generate_prime(1024, false, None, None)?;
        q.checked_add(&p, &two)?;
        while !q.is_prime_fasttest(64, &mut context, true)? {
            q.add_word(2)?;
        }
        p1.checked_sub(&p, &one)?;
        q1.checked_sub(&q, &one)?;
        phi.checked_mul(&p1, &q1, &mut context)?;
        if d.mod_inverse(&e, &phi, &mut context).is_ok() {
            break;
        }
    }
    let (mut n, mut dp, mut dq, mut qi) = (number()?, number()?, number()?, number()?);
    n.checked_mul(&p, &q, &mut context)?;
    dp.nnmod(&d, &p1, &mut context)?;
    dq.nnmod(&d, &q1, &mut context)?;
    qi.mod_inverse(&q, &p, &mut context)?;
    let key = RsaPrivateKeyBuilder::new(n, e, d)?.set_factors(p, q)?.set_crt_params(dp, dq, qi)?.build();
    Ok(PKey::from_rsa(key)?.private_key_to_pem_pkcs8()?)
}

/// R21.
pub(super) async fn modes(world: &mut World) -> Result<()> {
    let pem = PKey::from_rsa(Rsa::generate(2048)?)?.private_key_to_pem_pkcs8()?;
    let key = b"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=\n";
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (mode, is_fine) in [
        (0o600, true),
        (0o400, true),
        (0o440, true),
        (0o640, false),
        (0o644, false),
        (0o660, false),
        (0o604, false),
        (0o666, false),
    ] {
        for (file, bytes) in [("private.pem", &pem[..]), ("encryption.key", &key[..])] {
            let (settings, keys) = fresh(world, &format!("mode{mode:o}{}", &file[..3]))?;
            write(&keys.join(file), bytes, mode)?;
            let start = Start::of(&settings).await?;
            tried += 1;
            if start.code.is_none() != is_fine || (!is_fine && !start.is_refusal_of(file)) {
                wrong.push(format!("{file} {mode:o}: exit {:?}", start.code));
            }
        }
    }
    let figure = format!("{} of {tried} as promised {}", tried - wrong.len(), wrong.join("; "));
    world.promise("a secret that others may read is refused", figure, wrong.is_empty());

    let (settings, keys) = fresh(world, "open-directory")?;
    fs::set_permissions(&keys, Permissions::from_mode(0o777))?;
    let start = Start::of(&settings).await?;
    let figure = format!("exit {:?}", start.code);
    world.promise("a key directory that anybody may write is refused", figure, start.code.is_some());
    Ok(())
}

/// Settings with an empty database and an empty key directory of their own.
fn fresh(world: &World, name: &str) -> Result<(Settings, PathBuf)> {
    let keys = world.directory().join(format!("{name}-keys"));
    fs::create_dir_all(&keys)?;
    fs::set_permissions(&keys, Permissions::from_mode(0o700))?;
    let url = format!("sqlite://{}/{name}.db?mode=rwc", world.directory().display());
    let settings = world.settings(name)?.with("DATABASE_URL", &url);
    Ok((settings.with("AUTHSERVICE__KEYS__DIRECTORY", &keys.display().to_string()), keys))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(mode))?)
}
