//! R13 and R14: replicas whose clocks differ by minutes, and a host whose clock steps by an hour.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair, claims};
use proofs::server::Settings;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::verdict;
use crate::world::World;

/// R13: a token is issued by one and used at the other, both ways.
pub(super) async fn apart(world: &mut World) -> Result<()> {
    let Some(library) = library() else {
        world.leave_out("there is no libfaketime (Debian package faketime)");
        return Ok(());
    };
    for offset in ["+300s", "-300s"] {
        let first = world.settings(&format!("right{offset}"))?;
        let right = world.start(&first).await?;
        let wrong = faked(&first.replica(&format!("wrong{offset}"))?, &library).with("FAKETIME", offset);
        let wrong = world.start(&wrong).await?;
        let (mut one, mut two) = (Api::new(right.address()), Api::new(wrong.address()));
        let email =
            format!("clock{}@{DOMAIN}", &offset[1..]).replace('s', if offset.starts_with('+') { "a" } else { "b" });
        one.must_register(&email, PASSWORD).await?;
        let mut statuses = Vec::new();
        let mut pair = one.must_login(&email, PASSWORD).await?;
        for _ in 0..3 {
            for api in [&mut two, &mut one] {
                statuses.push(api.me(&pair.access).await?.status);
                let (answer, again) = (api.refresh(&pair.refresh).await?, api.refresh(&pair.refresh).await?);
                statuses.extend([answer.status, again.status]);
                pair = Pair::of(&again).unwrap_or(pair);
            }
        }
        let pair = two.must_login(&email, PASSWORD).await?;
        statuses.extend([one.me(&pair.access).await?.status, one.refresh(&pair.refresh).await?.status]);
        let fine = statuses.iter().filter(|status| **status == 200).count();
        let is_warned = wrong.logs()?.contains("clock differs");
        let figure = format!("{fine} of {} answers 200; warned of: {is_warned}", statuses.len());
        world.promise(
            &format!("a replica {offset} off is used like any other"),
            figure,
            fine == statuses.len() && is_warned,
        );
    }
    Ok(())
}

/// R14: the host's clock steps forth by an hour and back again, under load.
pub(super) async fn steps(world: &mut World) -> Result<()> {
    let Some(library) = library() else {
        world.leave_out("there is no libfaketime (Debian package faketime)");
        return Ok(());
    };
    let path = world.directory().join("faketime");
    let file = path.display().to_string();
    std::fs::write(&path, "+0s\n")?;
    let settings = faked(&world.settings("server")?, &library).with("FAKETIME_TIMESTAMP_FILE", &file);
    let server = world.start(&settings.with("FAKETIME_NO_CACHE", "1")).await?;
    let plan = Plan::on(&[server.address()]);
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(16, 48)).await?;
    let mut load = crowd.go(world, &plan);
    let (mut api, mut shown) = (Api::new(server.address()), Vec::new());
    let begun = Instant::now();
    let mut retries = Vec::new();
    for step in ["+3600s", "+0s", "-3600s", "+0s"] {
        tokio::time::sleep(world.size.seconds(2, 40)).await;
        // Access tokens of before the step may be over, or of the future: only refreshes must go on.
        let mut crowd = load.stop().await?;
        // A client whose answer is lost while the clock steps.
        let pair = api.must_login(&format!("user0@{DOMAIN}"), PASSWORD).await?;
        let lost = api.refresh(&pair.refresh).await?;
        std::fs::write(&path, format!("{step}\n"))?;
        let again = api.refresh(&pair.refresh).await?;
        // The server takes what the clock shows every 5 s.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let later = api.refresh(&pair.refresh).await?;
        retries.push(format!("{} and {} after {}", again.status, later.status, lost.status));
        crowd.settle(world, &plan).await;
        let fresh = api.must_login(&format!("user0@{DOMAIN}"), PASSWORD).await?;
        shown.push(claims(&fresh.access)["iat"].as_i64().unwrap_or_default());
        world.tell(format!("the clock shows {step}: {}", world.ledger.summary()));
        load = crowd.go(world, &plan);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let crowd = load.stop().await?;
    let moved: Vec<i64> = shown.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let figure = format!("times of issue moved by {moved:?} s within {:.0?}", begun.elapsed());
    if world.is_sqlite() {
        world.promise("the fault was there", figure, moved.iter().all(|moved| moved.abs() > 3_000));
    } else {
        // The database's clock counts, carried on by the monotonic one.
        world.promise("setting the host's clock moves nothing", figure, moved.iter().all(|moved| moved.abs() < 60));
    }
    let is_kept = retries.iter().all(|retry| retry == "200 and 200 after 200");
    world.promise("a retry across a step of the clock is no theft", retries.join(", "), is_kept);
    verdict::check(world, crowd, &plan).await
}

/// A server that sees the time that we say.
pub(super) fn faked(settings: &Settings, library: &Path) -> Settings {
    // Timers count on a clock that never steps, as on a real host.
    settings.clone().with("LD_PRELOAD", &library.display().to_string()).with("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// The library that fakes clocks, where it is installed.
pub(super) fn library() -> Option<PathBuf> {
    let names =
        ["x86_64", "aarch64"].map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
    names.into_iter().map(PathBuf::from).find(|path| path.exists())
}
