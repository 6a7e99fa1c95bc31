//! The report: tables in Markdown, as `docs/performance.md` holds them.

use proofs::Result;

use crate::load::{Outcome, precise};
use crate::rounds::{Cost, Figures, median};
use crate::stage::Stage;
use crate::storm::Storm;

pub(crate) fn starts(stages: &[Stage]) {
    println!("\n| start on an existing database | ms to ready |\n|---|---|");
    for stage in stages.iter().filter(|stage| stage.is_default_form()) {
        println!("| {} | {:.0} |", stage.name, stage.start.as_secs_f64() * 1000.0);
    }
    println!();
}

/// What a request costs beside the sum of its parts.
pub(crate) fn costs(figures: &Figures) {
    let limit = |name: &str| figures.limits.get(name).map_or(f64::NAN, |figures| median(figures.clone()));
    println!("\n| part | median |\n|---|---|");
    for (name, figures) in &figures.limits {
        let figure = median(figures.clone());
        if name.contains("/s") {
            println!("| {name} | {figure:.0} |");
        } else {
            println!("| {name} | {figure:.4} CPU-ms |");
        }
    }
    let (http, sign, hash) = (limit("bare HTTP answer"), limit("RSA-2048 signature"), limit("argon2id hash"));
    println!(
        "\n| operation | server, CPU-ms | database, CPU-ms | its parts, CPU-ms | server / parts | requests/s | p50 ms | p99 ms | load, processors |\n|---|---|---|---|---|---|---|---|---|"
    );
    for ((stage, operation), costs) in &figures.costs {
        let parts = match *operation {
            "refresh" if stage.ends_with("opaque") => http + sign,
            "refresh" => http + 2.0 * sign,
            "login" => http + hash + if stage.ends_with("opaque") { sign } else { 2.0 * sign },
            _ => http,
        };
        let of = |part: fn(&Cost) -> f64| median(costs.iter().map(part).collect());
        let server = of(|cost| cost.server);
        println!(
            "| {stage}: {operation} | {server:.3} | {:.3} | {parts:.3} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} |",
            of(|cost| cost.database),
            server / parts,
            of(|cost| cost.per_second),
            of(|cost| cost.p50),
            of(|cost| cost.p99),
            of(|cost| cost.load),
        );
    }
    for (what, count) in &figures.others {
        println!("\nNOT AS EXPECTED: {what}: {count}");
    }
}

/// Refreshes a second beside what the disk commits one by one.
pub(crate) fn throughput(figures: &Figures) {
    let limit = |name: &str| figures.limits.get(name).map_or(f64::NAN, |figures| median(figures.clone()));
    println!("\n| durable refreshes of 16 sessions | a second | of what | ratio |\n|---|---|---|---|");
    for ((stage, operation), costs) in &figures.costs {
        if *operation == "refresh" {
            let rate = median(costs.iter().map(|cost| cost.per_second).collect());
            let name = if stage.starts_with("sqlite") {
                "SQLite commits/s, 1 client"
            } else {
                "PostgreSQL commits/s, 16 clients"
            };
            println!("| {stage} | {rate:.0} | {:.0} {name} | {:.2} |", limit(name), rate / limit(name));
        }
    }
}

pub(crate) fn memory(stages: &[Stage]) -> Result<()> {
    println!("\n| memory | now, MiB | peak, MiB |\n|---|---|---|");
    for stage in stages {
        let usage = stage.server.usage()?;
        let mib = |bytes: u64| precise(usize::try_from(bytes).unwrap_or(usize::MAX)) / 1024.0 / 1024.0;
        println!("| {} | {:.1} | {:.1} |", stage.name, mib(usage.rss), mib(usage.peak_rss));
    }
    Ok(())
}

pub(crate) fn storm(name: &str, storm: &Storm) {
    println!("\n| {name} | requests/s | p50 ms | p99 ms | most ms | not 200 |\n|---|---|---|---|---|---|");
    let line = |what: &str, outcome: &Outcome| {
        println!(
            "| {what} | {:.1} | {:.2} | {:.2} | {:.2} | {} |",
            outcome.per_second(),
            outcome.percentile(50),
            outcome.percentile(99),
            outcome.percentile(100),
            outcome.others.iter().map(|(what, count)| format!("{count} x {what}")).collect::<Vec<_>>().join(", "),
        );
    };
    line("refresh, calm, 20/s asked", &storm.calm[0]);
    line("JWK Set, calm, 100/s asked", &storm.calm[1]);
    line("login, 32 workers alone", &storm.alone);
    line("login, in the storm", &storm.beside[0]);
    line("refresh, in the storm", &storm.beside[1]);
    line("JWK Set, in the storm", &storm.beside[2]);
}
