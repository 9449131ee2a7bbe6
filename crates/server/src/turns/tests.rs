use futures::FutureExt;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn asker(tenant: TenantId) -> Asker {
    Asker {
        tenant,
        shared: true,
    }
}

fn now(turns: &Arc<Turns>, tenant: TenantId) -> Option<Turn> {
    turns.take(asker(tenant), PATIENCE).now_or_never()?.ok()
}

#[tokio::test]
async fn the_last_turn_is_kept_for_whoever_has_none() {
    let turns = Turns::new(4);
    let held: Vec<_> = (0..8).map_while(|_| now(&turns, 1)).collect();
    assert_eq!(held.len(), 3);
    let other = now(&turns, 2).unwrap();
    assert!(now(&turns, 3).is_none());
    drop(other);
    assert!(now(&turns, 1).is_none() && now(&turns, 3).is_some());
    let alone = Asker {
        tenant: 9,
        shared: false,
    };
    let turns = Turns::new(2);
    let all: Vec<_> = (0..2)
        .map(|_| turns.take(alone, PATIENCE).now_or_never().unwrap().unwrap())
        .collect();
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn a_newcomer_does_not_wait_behind_another_tenants_line() {
    let turns = Turns::new(1);
    let running = now(&turns, 1).unwrap();
    let mut line: Vec<_> = (0..100)
        .map(|_| Box::pin(turns.take(asker(1), PATIENCE)))
        .collect();
    assert!(line.iter_mut().all(|turn| turn.now_or_never().is_none()));
    let mut other = Box::pin(turns.take(asker(2), PATIENCE));
    assert!((&mut other).now_or_never().is_none());
    drop(running);
    let turn = other.now_or_never().unwrap().unwrap();
    assert!((&mut line[0]).now_or_never().is_none());
    drop(turn);
    assert!((&mut line[0]).now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn who_stops_waiting_gives_its_place_and_its_turn_back() {
    let turns = Turns::new(1);
    let running = now(&turns, 1).unwrap();
    let mut first = Box::pin(turns.take(asker(1), PATIENCE));
    let mut second = Box::pin(turns.take(asker(1), PATIENCE));
    let mut third = Box::pin(turns.take(asker(1), PATIENCE));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    assert!((&mut third).now_or_never().is_none());
    drop(first);
    drop(running);
    // The second has been granted its turn and does not know yet.
    drop(second);
    drop(third.now_or_never().unwrap().unwrap());
    let lines = turns.lines();
    assert_eq!(
        (lines.free, lines.waiting, lines.by_tenant.len()),
        (1, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn lines_are_bounded_in_length_and_time() {
    let turns = Turns::new(1);
    let running = now(&turns, 1).unwrap();
    let mut line = Vec::new();
    let full = loop {
        let mut turn = Box::pin(turns.take(asker(1), PATIENCE));
        match (&mut turn).now_or_never() {
            None => line.push(turn),
            Some(result) => break result.unwrap_err(),
        }
    };
    assert_eq!((full, line.len()), (NoTurn::Full, MAX_WAITING / 2));
    let other = turns.take(asker(2), PATIENCE);
    assert_eq!(other.await.unwrap_err(), NoTurn::TimedOut);
    drop(running);
}

#[test]
fn among_equals_the_least_time_used_goes_first() {
    let turns = Turns::new(1);
    {
        let mut lines = turns.lines();
        lines.free = 0;
        for (tenant, used) in [(1, 5), (2, 3), (3, 4)] {
            let (sender, _) = oneshot::channel();
            let line = Line {
                waiting: [(tenant, sender)].into(),
                held: 0,
                used: Duration::from_secs(used),
            };
            lines.by_tenant.insert(tenant, line);
            lines.waiting += 1;
        }
        lines.free = 1;
        lines.grant(0);
    }
    let lines = turns.lines();
    let held = lines.by_tenant.iter().filter(|(_, line)| line.held > 0);
    assert_eq!(held.map(|(tenant, _)| *tenant).collect::<Vec<_>>(), [2]);
}
