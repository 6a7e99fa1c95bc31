//! The directory `keys/`: the key-encryption key, and PEM files to import. Nothing else of the ring lies in files.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};

use super::key::{self, Fault, PrivateKey};
use super::seal::{EncryptionKeys, KeyEncryptionKey};
use crate::config::{self, encryption_key};
use crate::random;

const ENCRYPTION_KEY: &str = "encryption.key";

/// PEM files found at the start.
#[derive(Default)]
pub(super) struct Found {
    /// Private keys with the file each came from.
    pub(super) private: Vec<(PathBuf, PrivateKey)>,
    /// Thumbprints of public keys, which are only compared.
    pub(super) public: Vec<(PathBuf, String)>,
}

/// Reads the key-encryption key from the setting or its file, and the previous one if it is set; `None` when there is none.
pub(super) fn encryption_keys_of(config: &config::Keys) -> Result<Option<EncryptionKeys>, Fault> {
    encryption_key_of(config)?.map(|current| with_previous(current, config)).transpose()
}

/// Makes the key-encryption key and its file (exclusively, mode 0600). For an empty ring only.
pub(super) fn make_encryption_keys(config: &config::Keys) -> Result<EncryptionKeys, Fault> {
    with_previous(make_encryption_key(config)?, config)
}

fn with_previous(current: KeyEncryptionKey, config: &config::Keys) -> Result<EncryptionKeys, Fault> {
    let previous = &config.previous_encryption_key;
    let is_set = !previous.expose_secret().is_empty();
    let previous = is_set.then(|| decode(previous, "keys.previous_encryption_key")).transpose()?;
    EncryptionKeys::new(current, previous)
}

fn encryption_key_of(config: &config::Keys) -> Result<Option<KeyEncryptionKey>, Fault> {
    if !config.encryption_key.expose_secret().is_empty() {
        return decode(&config.encryption_key, "keys.encryption_key").map(Some);
    }
    let path = config.directory.join(ENCRYPTION_KEY);
    if !path.exists() {
        return Ok(None);
    }
    let text = SecretString::from(String::from_utf8(read_private(&path)?).unwrap_or_default());
    decode(&text, &path.display().to_string()).map(Some)
}

fn make_encryption_key(config: &config::Keys) -> Result<KeyEncryptionKey, Fault> {
    let path = config.directory.join(ENCRYPTION_KEY);
    let at = |error: std::io::Error| Fault(format!("{}: {error}", path.display()));
    let bytes: [u8; 32] = random::bytes().map_err(|error| Fault(error.to_string()))?;
    let text = Zeroizing::new(BASE64_STANDARD.encode(bytes));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.directory).map_err(at)?;
    // Written beside and linked into place: a reader sees the whole key or none, and an existing one is never overwritten.
    let name = random::uuid().map_err(|error| Fault(error.to_string()))?;
    let draft = config.directory.join(format!(".{ENCRYPTION_KEY}.{name}"));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::hard_link(&draft, &path)?;
        // The name too must survive a power cut: the ring is sealed with this key from now on.
        fs::File::open(&config.directory)?.sync_all()
    })();
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => Ok(KeyEncryptionKey::new(bytes)),
        // Another process was first: its key counts.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            encryption_key_of(config)?.ok_or_else(|| Fault(format!("{}: vanished", path.display())))
        }
        Err(error) => Err(at(error)),
    }
}

/// Reads every `*.pem` of the directory and the two files that settings name.
pub(super) fn pem_files(config: &config::Keys) -> Result<Found, Vec<Fault>> {
    require_own_directory(&config.directory).map_err(|fault| vec![fault])?;
    let mut paths: Vec<PathBuf> = fs::read_dir(&config.directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "pem") && path.is_file())
        .collect();
    let named = [&config.private_key_path, &config.public_key_path];
    paths.extend(named.into_iter().filter(|path| !path.as_os_str().is_empty()).cloned());
    paths.sort();
    paths.dedup();
    let (mut found, mut faults) = (Found::default(), Vec::new());
    for path in paths {
        if let Err(Fault(fault)) = sort_in(&path, config, &mut found) {
            faults.push(Fault(format!("{}: {fault}", path.display())));
        }
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

fn sort_in(path: &Path, config: &config::Keys, found: &mut Found) -> Result<(), Fault> {
    let pem = Zeroizing::new(fs::read(path).map_err(|error| Fault(error.to_string()))?);
    let text = String::from_utf8_lossy(&pem);
    if text.contains("PUBLIC KEY") && !text.contains("PRIVATE KEY") {
        found.public.push((path.to_owned(), key::kid_of_public_pem(&pem)?));
        return Ok(());
    }
    require_private(path)?;
    found.private.push((path.to_owned(), PrivateKey::from_pem(&pem, config.algorithm)?));
    Ok(())
}

/// Reads the private key of one file, which must be fit for the algorithm of the setting.
pub(super) fn private_key(path: &Path, config: &config::Keys) -> Result<PrivateKey, Fault> {
    let pem = Zeroizing::new(read_private(path)?);
    let key = PrivateKey::from_pem(&pem, config.algorithm).and_then(|key| key.require(config.algorithm).map(|()| key));
    key.map_err(|Fault(fault)| Fault(format!("{}: {fault}", path.display())))
}

fn decode(text: &SecretString, source: &str) -> Result<KeyEncryptionKey, Fault> {
    encryption_key(text)
        .map(KeyEncryptionKey::new)
        .ok_or_else(|| Fault(format!("{source}: must be 32 bytes as base64 or hexadecimal (openssl rand -base64 32)")))
}

fn read_private(path: &Path) -> Result<Vec<u8>, Fault> {
    let at = |Fault(fault)| Fault(format!("{}: {fault}", path.display()));
    require_private(path).map_err(at)?;
    fs::read(path).map_err(|error| Fault(format!("{}: {error}", path.display())))
}

/// Errors when anybody may put a key into the directory. Sticky ones are what orchestrators mount secrets as.
fn require_own_directory(path: &Path) -> Result<(), Fault> {
    const EVERYBODY: u32 = 0o002;
    const STICKY: u32 = 0o1000;
    match fs::metadata(path).map(|metadata| metadata.permissions().mode()) {
        Ok(mode) if mode & EVERYBODY != 0 && mode & STICKY == 0 => {
            let (path, mode) = (path.display(), mode & 0o7777);
            Err(Fault(format!(
                "{path}: has mode {mode:04o}, so that anybody can put a key there; set it to 0700 (chmod 700)"
            )))
        }
        _ => Ok(()),
    }
}

/// Errors when others than the owner can read the file. A group may on read-only mounts (mode 0440), as orchestrators make them.
fn require_private(path: &Path) -> Result<(), Fault> {
    let mode = fs::metadata(path).map_err(|error| Fault(error.to_string()))?.permissions().mode() & 0o777;
    if matches!(mode, 0o600 | 0o400 | 0o700 | 0o500 | 0o440) {
        return Ok(());
    }
    Err(Fault(format!("has mode {mode:04o}, so that others can read it; set it to 0600 (chmod 600)")))
}
