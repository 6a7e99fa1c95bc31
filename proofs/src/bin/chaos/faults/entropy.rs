//! R32: the operating system gives no more random bytes.
//!
//! OpenSSL asks it for a seed at the start and again when an hour has passed, so its clock is moved too.

use std::path::Path;
use std::process::Command;

use proofs::Result;
use proofs::api::{Api, Pair};

use super::clocks;
use crate::crowd::{DOMAIN, PASSWORD};
use crate::verdict;
use crate::world::World;

/// Fails every source of random bytes while the file exists that `NO_ENTROPY` names.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>
static int fails(void) {
    const char *path = getenv("NO_ENTROPY");
    int before = errno, found = path && access(path, F_OK) == 0;
    errno = found ? EIO : before;
    return found;
}
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    return number == SYS_getrandom && fails() ? -1 : real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
ssize_t getrandom(void *bytes, size_t length, unsigned flags) {
    return fails() ? -1 : syscall(SYS_getrandom, bytes, length, flags);
}
int getentropy(void *bytes, size_t length) {
    return getrandom(bytes, length, 0) == (ssize_t)length ? 0 : -1;
}
static int opened(const char *name, const char *path, int flags, int mode) {
    int (*real)(const char *, int, int) = (int (*)(const char *, int, int))dlsym(RTLD_NEXT, name);
    return strstr(path, "random") && !strncmp(path, "/dev/", 5) && fails() ? -1 : real(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    int mode = va_arg(list, int);
    va_end(list);
    return opened("open", path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    va_list list;
    va_start(list, flags);
    int mode = va_arg(list, int);
    va_end(list);
    return opened("open64", path, flags, mode);
}
"#;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let directory = world.directory().to_owned();
    let (Some(clock), Some(own)) = (clocks::library(), compile(&directory)?) else {
        world.leave_out("it needs libfaketime and a C compiler");
        return Ok(());
    };
    let [time, dry] = ["faketime", "dry"].map(|name| directory.join(name));
    std::fs::write(&time, "+0s\n")?;
    let settings = clocks::faked(&world.settings("server")?, &clock)
        .with("LD_PRELOAD", &format!("{own} {}", clock.display()))
        .with("FAKETIME_TIMESTAMP_FILE", &time.display().to_string())
        .with("FAKETIME_NO_CACHE", "1")
        .with("NO_ENTROPY", &dry.display().to_string());
    let server = world.start(&settings).await?;
    let mut api = Api::new(server.address());
    let email = format!("alice@{DOMAIN}");
    api.must_register(&email, PASSWORD).await?;
    let pair = api.must_login(&email, PASSWORD).await?;
    std::fs::write(&dry, "")?;
    // Past the hour after which OpenSSL wants a new seed.
    std::fs::write(&time, "+4000s\n")?;
    let mut statuses = Vec::new();
    for number in 0..4 {
        statuses.push(api.login(&email, PASSWORD).await?.status);
        statuses.push(api.register(&format!("bob{number}@{DOMAIN}"), PASSWORD).await?.status);
    }
    let refreshed = api.refresh(&pair.refresh).await?;
    std::fs::remove_file(&dry)?;
    let after = api.login(&email, PASSWORD).await?.status;
    let refused = statuses.iter().filter(|status| **status == 503).count();
    let figure = format!("{refused} of {} answers 503 ({statuses:?}); refresh {}", statuses.len(), refreshed.status);
    let is_kept = refused == statuses.len() && [200, 503].contains(&refreshed.status);
    world.promise("without random bytes what needs them is 503", figure, is_kept);
    world.promise("it heals without a restart", format!("sign-in: {after}"), after == 200);
    let newest = Pair::of(&refreshed).map_or(pair.refresh, |pair| pair.refresh);
    let status = api.refresh(&newest).await?.status;
    world.promise("the session goes on", format!("refresh: {status}"), status == 200);
    verdict::scan_logs(world)
}

/// The library's path; `None` without a compiler.
fn compile(directory: &Path) -> Result<Option<String>> {
    let [source, library] = ["entropy.c", "entropy.so"].map(|name| directory.join(name).display().to_string());
    std::fs::write(&source, SOURCE)?;
    let status = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", &library, &source, "-ldl"]).status();
    Ok(status.is_ok_and(|status| status.success()).then_some(library))
}
