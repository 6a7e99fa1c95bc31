//! Owners and strangers: who guesses at an account keeps nobody out who is known.

use authservice::accounts::Email;
use chrono::TimeDelta;

use super::{ALICE, AWAY, HOME, MOMENT, NO_TOTAL, each_limited, guess, limited, login, register, spend};
use crate::support::{PASSWORD, claims};

/// ASVS 6.1.1: a limit is not a weapon against the owner.
#[tokio::test]
async fn t02_a_stranger_keeps_the_owner_out_neither_at_home_nor_of_a_session() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        let session = login(&app, ALICE, PASSWORD, HOME).await.pair();
        assert_eq!(spend(&app, ALICE, AWAY).await, 4);

        let pair = login(&app, ALICE, PASSWORD, HOME).await.pair();

        app.refresh(&pair.refresh).await.pair();
        assert_eq!(claims(&app.refresh(&session.refresh).await.pair().refresh)["gen"], 1);
        assert_eq!(app.me(&session.access).await.status, 200);
        // From where she is not known she waits with the stranger: at most thirty seconds.
        limited(&login(&app, ALICE, PASSWORD, "192.0.2.44").await);
        app.advance(TimeDelta::seconds(30));
        login(&app, ALICE, PASSWORD, "192.0.2.44").await.pair();
    })
    .await;
}

/// Who had the old password may be known at an address since: no longer than the password is.
#[tokio::test]
async fn a_new_password_makes_every_address_a_strangers() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        let known = "SELECT count(*) FROM rate_limits WHERE user_id IS NOT NULL";
        assert_eq!(app.count(known).await, 1);

        let (operator, alice) = (app.app.accounts.management(), Email::parse(ALICE).unwrap());
        operator.set_password(&alice, "An0ther!Passphrase".into(), app.now()).await.unwrap();

        assert_eq!(app.count(known).await, 0);
        assert_eq!(spend(&app, ALICE, AWAY).await, 4);
        limited(&login(&app, ALICE, "An0ther!Passphrase", HOME).await);
    })
    .await;
}

#[tokio::test]
async fn d12_a_success_ends_the_delay_only_where_it_came_from() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        assert_eq!(spend(&app, ALICE, AWAY).await, 4);
        // At home there are failures too.
        for _ in 0..3 {
            guess(&app, ALICE, HOME).await.refused(401, "invalid_credentials");
        }

        login(&app, ALICE, PASSWORD, HOME).await.pair();

        limited(&login(&app, ALICE, PASSWORD, AWAY).await);
        assert_eq!(spend(&app, ALICE, HOME).await, 4, "at home she begins anew");
        limited(&login(&app, ALICE, PASSWORD, HOME).await);
        app.advance(TimeDelta::seconds(1));
        guess(&app, ALICE, AWAY).await.refused(401, "invalid_credentials");
        assert_eq!(limited(&guess(&app, ALICE, AWAY).await), 2, "the stranger goes on where he was");
    })
    .await;
}

#[tokio::test]
async fn an_account_is_known_at_an_address_for_thirty_days() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        app.advance(TimeDelta::days(30) - MOMENT);
        spend(&app, ALICE, AWAY).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        app.advance(TimeDelta::days(30));
        spend(&app, ALICE, AWAY).await;

        limited(&login(&app, ALICE, PASSWORD, HOME).await);
    })
    .await;
}

/// RFC 4291 2.5.1: a client chooses the lower half of its address itself.
#[tokio::test]
async fn of_a_version_6_address_the_network_counts() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, "2001:db8:0:7::1").await.pair();
        spend(&app, ALICE, AWAY).await;

        login(&app, ALICE, PASSWORD, "2001:db8:0:7:ffff::2").await.pair();
        limited(&login(&app, ALICE, PASSWORD, "2001:db8:0:8::1").await);
        // The same address, as an old socket writes it.
        app.advance(TimeDelta::seconds(1));
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        spend(&app, ALICE, AWAY).await;
        login(&app, ALICE, PASSWORD, &format!("::ffff:{HOME}")).await.pair();
    })
    .await;
}

#[tokio::test]
async fn a_user_is_known_at_the_twenty_addresses_seen_last() {
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        app.register("bob@example.com").await;
        login(&app, "bob@example.com", PASSWORD, HOME).await.pair();
        for number in 1..=25 {
            login(&app, ALICE, PASSWORD, &format!("198.51.100.{number}")).await.pair();
            app.advance(TimeDelta::seconds(1));
        }
        let known = "SELECT count(*) FROM rate_limits WHERE known_until IS NOT NULL AND user_id = ";

        assert_eq!(app.count(&format!("{known} (SELECT id FROM users WHERE email = '{ALICE}')")).await, 20);
        assert_eq!(app.count(&format!("{known} (SELECT id FROM users WHERE email <> '{ALICE}')")).await, 1);
        spend(&app, ALICE, AWAY).await;
        login(&app, ALICE, PASSWORD, "198.51.100.6").await.pair();
        limited(&login(&app, ALICE, PASSWORD, "198.51.100.5").await);
        app.sql("DELETE FROM users").await;
        assert_eq!(app.count("SELECT count(*) FROM rate_limits WHERE user_id IS NOT NULL").await, 0);
    })
    .await;
}

/// Strangers in any number leave room for those who are known.
#[tokio::test]
async fn the_budget_of_everybody_keeps_a_reserve_for_who_is_known() {
    let total = [("AUTHSERVICE__LIMITS__SIGN_INS_PER_SECOND", "10")];
    each_limited(&total, async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        app.advance(TimeDelta::seconds(1));
        for number in 0..9 {
            let (email, from) = (format!("nobody{number}@example.com"), format!("203.0.113.{number}"));
            guess(&app, &email, &from).await.refused(401, "invalid_credentials");
        }
        assert_eq!(register(&app, "tenth@example.com", AWAY).await.status, 201, "registrations are among them");

        assert_eq!(limited(&guess(&app, "nobody10@example.com", "203.0.113.10").await), 1);
        assert_eq!(limited(&register(&app, "eleventh@example.com", "203.0.113.11").await), 1);
        for _ in 0..2 {
            login(&app, ALICE, PASSWORD, HOME).await.pair();
        }
        limited(&login(&app, ALICE, PASSWORD, HOME).await);
        app.advance(TimeDelta::seconds(1));
        guess(&app, "nobody10@example.com", "203.0.113.10").await.refused(401, "invalid_credentials");
    })
    .await;
}
